"""Rankings of documents: from search results, of given candidates, by BM25, and fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sentemb.errors import EvaluationError
from sentemb.evaluate.metrics import Run
from sentemb.maths.neighbours import reciprocal_rank_fusion, top
from sentemb.types import Hits, Similarity, Vectors

Ranking = dict[str, dict[str, float]]  # query -> document -> score, best first


def to_run(hits: Hits, query_ids: Sequence[str], document_ids: Sequence[str]) -> Ranking:
    """Positions and scores as a run, best first, without positions of -1."""
    names = np.array(document_ids, dtype=object)
    run: Ranking = {}
    for query, positions, scores in zip(query_ids, hits.ids, hits.scores, strict=True):
        is_hit = positions >= 0
        run[query] = dict(zip(names[positions[is_hit]].tolist(), scores[is_hit].tolist(), strict=True))
    return run


def rerank(
    queries: Mapping[str, Vectors], documents: Mapping[str, Vectors], candidates: Mapping[str, Sequence[str]], *,
    similarity: Similarity, k: int | None = None,
) -> Ranking:  # fmt: skip
    """Every query's own candidates, at most k, in the order of their similarity; vectors (d,) by id.

    Raises: EvaluationError: a candidate that is no document.
    """
    run: Ranking = {}
    for query, vector in queries.items():
        ids = list(dict.fromkeys(candidates.get(query, ())))
        unknown = [document for document in ids if document not in documents]
        if unknown:
            raise EvaluationError(f'query "{query}" names {len(unknown)} unknown documents, e.g. "{unknown[0]}"')
        vectors = np.stack([documents[document] for document in ids]) if ids else vector[None][:0]
        hits = top(vector[None], vectors, k or len(ids), metric=similarity)
        run |= to_run(hits, [query], ids)
    return run


def bm25_search(documents: Sequence[str], queries: Sequence[str], k: int) -> Hits:
    """The ``min(k, documents)`` best documents of every query by BM25 over English words, best first; id -1 where no
    more share a word."""
    from sentemb.search.query.words import Bm25
    from sentemb.search.store.words import words_of_texts

    return Bm25([words_of_texts(documents)]).top(queries, k)


def fuse(runs: Sequence[Run], k: int) -> Ranking:
    """The k best documents of several runs by reciprocal rank fusion."""
    fused: Ranking = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        scores = reciprocal_rank_fusion(_best_first(run[query]) for run in runs if run.get(query))
        fused[query] = {name: scores[name] for name in _best_first(scores)[:k]}
    return fused


def _best_first(hits: Mapping[str, float]) -> list[str]:
    """Documents, best first; equal scores by descending id, as trec_eval orders them."""
    return sorted(hits, key=lambda name: (hits[name], name), reverse=True)
