"""What scores are made of: correlations, similarities of pairs, and metrics of ranked lists.

Spearman is Pearson of mid-ranks. Where a correlation does not exist (fewer than two pairs, or one side constant) it
is NaN, as in scipy.

Ranked lists are scored by trec_eval (through pytrec_eval): nDCG's gain is the relevance itself, MAP and recall are cut
at k; MRR is cut by us, which trec_eval does not do. Queries whose judgements are all 0 are left out, and a query
without any hit scores 0, as in BEIR and MTEB. Where scores tie, trec_eval orders by descending document id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sentemb.errors import EvaluationError, needs_extra

PairSimilarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Qrels = Mapping[str, Mapping[str, int]]  # query -> document -> relevance (0, 1, 2, …)
Run = Mapping[str, Mapping[str, float]]  # query -> document -> score

CUTS: tuple[int, ...] = (1, 3, 5, 10, 20, 100, 1000)
# our names of trec_eval's measures that are cut at k
_CUT = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
METRICS = (*_CUT, "mrr")
_BLOCK_ROWS = 16_384  # bounds the float64 copies


# ------------------------------------------------------------------------------------------------- pairs
def pearson(predicted: ArrayLike, gold: ArrayLike) -> float:
    """Pearson's r of two sequences of the same length; NaN where it does not exist."""
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    # a constant has no correlation, and its mean may differ from it by rounding, so compare values
    exists = len(x) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0
    return float(np.corrcoef(x, y)[0, 1]) if exists else float("nan")


def spearman(predicted: ArrayLike, gold: ArrayLike) -> float:
    """Spearman's ρ (ties share their mean rank); NaN where it does not exist."""
    needs_extra("scipy", "eval")
    from scipy.stats import rankdata

    return pearson(rankdata(predicted, nan_policy="propagate"), rankdata(gold, nan_policy="propagate"))


def pair_similarities(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> Mapping[PairSimilarity, NDArray[np.float64]]:
    """Row i of ``first`` (pairs, d) with row i of ``second``, four ways (pairs,); distances are negated, so more is
    always closer. The cosine with a zero vector is 0."""
    out = {name: np.empty(len(first), dtype=np.float64) for name in get_args(PairSimilarity)}
    for start in range(0, len(first), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        x, y = first[rows].astype(np.float64), second[rows].astype(np.float64)
        out["dot"][rows] = np.einsum("nd,nd->n", x, y)
        out["euclidean"][rows] = -np.linalg.norm(x - y, axis=1)
        out["manhattan"][rows] = -np.abs(x - y).sum(axis=1)
        norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
        exists = (norms[0] > 0) & (norms[1] > 0)
        chord = x / np.where(exists, norms[0], 1)[:, None] - y / np.where(exists, norms[1], 1)[:, None]
        # by the chord rather than the product: equal vectors then have exactly 1, and such pairs tie
        out["cosine"][rows] = np.where(exists, 1 - 0.5 * np.einsum("nd,nd->n", chord, chord), 0.0)
    return out


# ---------------------------------------------------------------------------------------------- rankings
def judged_queries(qrels: Qrels) -> list[str]:
    """Queries with at least one relevant document."""
    return [query for query, judged in qrels.items() if any(relevance > 0 for relevance in judged.values())]


def ranking_scores(qrels: Qrels, run: Run, cuts: Sequence[int] = CUTS) -> dict[str, NDArray[np.float64]]:
    """``ndcg@10`` and so on, one value a judged query, in the order of ``judged_queries(qrels)``.

    Raises: EvaluationError: no query has a relevant document.
    """
    needs_extra("pytrec_eval", "eval")
    import pytrec_eval

    queries = judged_queries(qrels)
    if not queries:
        raise EvaluationError("the relevance judgements hold no query with a relevant document; nothing can be scored")
    # a negative judgement ("spam") counts as not relevant, but would be a negative gain in nDCG
    judged = {q: {d: max(int(r), 0) for d, r in qrels[q].items()} for q in queries}
    marks = ",".join(map(str, cuts))
    measures = {"recip_rank", *(f"{theirs}.{marks}" for theirs in _CUT.values())}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, measures)
    by_query = evaluator.evaluate({q: {d: float(s) for d, s in run[q].items()} for q in queries if run.get(q)})

    def values(measure: str) -> NDArray[np.float64]:
        return np.array([by_query[q][measure] if q in by_query else 0.0 for q in queries])

    first = values("recip_rank")
    scores = {f"mrr@{k}": np.where(first * k > 1 - 1e-9, first, 0.0) for k in cuts}
    return scores | {f"{ours}@{k}": values(f"{theirs}_{k}") for ours, theirs in _CUT.items() for k in cuts}


def map_at_r(qrels: Qrels, run: Run) -> NDArray[np.float64]:
    """Mean average precision at R, one value a judged query, where a query has R relevant documents:

        MAP@R(q) = 1/R · Σ over ranks i ≤ R with a relevant document of (relevant documents up to i) / i

    Source: Musgrave, Belongie & Lim 2020, ECCV, "A metric learning reality check", section 3.2.
    Deviations: none.
    """
    values = []
    for query in judged_queries(qrels):
        relevant = {document for document, relevance in qrels[query].items() if relevance > 0}
        hits = run.get(query, {})
        best = sorted(hits, key=lambda name: (hits[name], name), reverse=True)[: len(relevant)]
        right = np.array([document in relevant for document in best], dtype=np.float64)
        values.append(float(np.sum(right * np.cumsum(right) / np.arange(1, len(right) + 1)) / len(relevant)))
    return np.array(values)


def check_metric(metric: str) -> None:
    """Whether a name is ``NAME@K`` with a known NAME, or ``map@r``.

    Raises: ValueError: it is not.
    """
    name, _, cut = metric.partition("@")
    if metric == "map@r":
        return
    if name not in METRICS or not cut.isdigit() or not int(cut):
        raise ValueError(f'metric = "{metric}": NAME@K is needed, NAME one of {", ".join(METRICS)}; or map@r')
