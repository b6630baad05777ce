"""Metrics of ranked lists with graded relevance, computed by trec_eval (through pytrec_eval).

nDCG uses the relevance itself as the gain (trec_eval's ``ndcg_cut``), MAP and recall are cut at k; MRR is ours, since
trec_eval does not cut it. Queries whose judgements are all 0 are left out, and a query without any hit scores 0, as in
BEIR and MTEB. trec_eval orders hits by score and, where scores tie, by descending document id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, EvaluationError, needs_extra

Qrels = Mapping[str, Mapping[str, int]]  # query -> document -> relevance (0, 1, 2, …)
Run = Mapping[str, Mapping[str, float]]  # query -> document -> score

CUTS: tuple[int, ...] = (1, 3, 5, 10, 20, 100, 1000)
METRICS: tuple[str, ...] = ("ndcg", "map", "mrr", "recall", "precision", "hit_rate")


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
    marks = ",".join(map(str, cuts))
    measures = {f"ndcg_cut.{marks}", f"map_cut.{marks}", f"recall.{marks}", f"P.{marks}", f"success.{marks}"}
    # a negative judgement ("spam") counts as not relevant, but would be a negative gain in nDCG
    judged = {q: {d: max(int(r), 0) for d, r in qrels[q].items()} for q in queries}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, measures)
    by_query = evaluator.evaluate({q: {d: float(s) for d, s in run.get(q, {}).items()} for q in queries if run.get(q)})
    names = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
    scores = {
        f"{ours}@{k}": np.array([by_query[q][f"{theirs}_{k}"] if q in by_query else 0.0 for q in queries])
        for ours, theirs in names.items()
        for k in cuts
    }
    first = np.array([_first_relevant(judged[q], run.get(q, {})) for q in queries], dtype=np.float64)
    for k in cuts:
        scores[f"mrr@{k}"] = np.where(first <= k, 1 / first, 0.0)
    return scores


def _first_relevant(judged: Mapping[str, int], hits: Mapping[str, float]) -> float:
    """Rank of the first relevant hit, infinite where there is none; trec_eval's order of ties."""
    relevant = [(hits[d], d) for d, relevance in judged.items() if relevance > 0 and d in hits]
    if not relevant:
        return float("inf")
    # rank = 1 + hits before the best relevant one; no need to sort a thousand hits
    best = max(relevant)
    return 1 + sum((score, document) > best for document, score in hits.items())


def check_metric(metric: str) -> None:
    """Whether a name is ``NAME@K`` with a known NAME.

    Raises: ValueError: it is not.
    """
    name, _, cut = metric.partition("@")
    if name not in METRICS or not cut.isdigit() or not int(cut):
        raise ValueError(f'metric = "{metric}": NAME@K is needed, NAME one of {", ".join(METRICS)}')


def check_ids(qrels: Qrels, queries: Sequence[str], documents: Sequence[str], *, source: str) -> None:
    """Every judged query and every relevant document must be known.

    Raises: DataError: unknown ids; says how many and shows the first of each kind.
    """
    known_queries, known_documents = set(queries), set(documents)
    faults = []
    unknown = [query for query in qrels if query not in known_queries]
    if unknown:
        faults.append(
            f'{len(unknown):,} of {len(qrels):,} judged queries are not among the queries (first: "{unknown[0]}")'
        )
    lost = sorted({d for judged in qrels.values() for d, r in judged.items() if r > 0 and d not in known_documents})
    if lost:
        faults.append(f'{len(lost):,} relevant documents are not in the corpus (first: "{lost[0]}")')
    if faults:
        raise DataError(f"{source}: {'; '.join(faults)}; the judgements belong to another corpus, or rows are missing")
