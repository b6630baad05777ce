"""Who is nearest: exact search, search through an index of any kind, BM25, and the fusion of rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory

import numpy as np

from sentemb.errors import EvaluationError
from sentemb.evaluate.metrics import Run
from sentemb.maths.fusion import reciprocal_rank_fusion
from sentemb.maths.neighbours import top
from sentemb.types import Hits, Similarity, Vectors

Ranking = dict[str, dict[str, float]]  # query -> document -> score, best first


def search(
    queries: Vectors, documents: Vectors, k: int, *, similarity: Similarity = "cosine", index: str | None = None,
    seed: int = 42,
) -> Hits:  # fmt: skip
    """The ``min(k, documents)`` best documents of every query.

    Args:
        queries: (queries, d).
        documents: (documents, d).
        k: at most this many hits a query.
        similarity: ``cosine`` or ``dot``.
        index: a kind of ``sentemb index`` (flat, sq8, hnsw, ivf-pq, …), ``auto``, or a FAISS factory string, that is
            built for these documents; None: every document is compared.
        seed: of the index's training sample.
    """
    if index is None:
        return top(queries, documents, k, metric=similarity)
    from sentemb.search import SearchIndex

    if similarity == "cosine":  # here, because the index refuses zero vectors, which a task's empty text may be
        queries, documents = _unit(queries), _unit(documents)
    with (
        TemporaryDirectory(prefix="sentemb-eval-") as folder,
        SearchIndex.build(folder, None, vectors=documents, kind=index, metric="dot", seed=seed) as built,
    ):
        return built.search_positions(queries, min(k, len(documents)))


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


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
    """Every query's own candidates in the order of their similarity.

    Args:
        queries: id → (d,).
        documents: id → (d,).
        candidates: id of a query → ids of documents.
        similarity: ``cosine`` or ``dot``.
        k: at most this many of a query's candidates.

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
