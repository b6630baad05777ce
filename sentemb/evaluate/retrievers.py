"""Who is nearest: exact search, search through an index of any kind, BM25, and the fusion of rankings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from sentemb.maths.neighbours import top
from sentemb.types import Hits, Similarity


def search(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    k: int,
    *,
    similarity: Similarity = "cosine",
    index: str | None = None,
    seed: int = 42,
) -> Hits:
    """The ``min(k, documents)`` best documents of every query.

    Args:
        queries: (queries, d).
        documents: (documents, d).
        k: at most this many hits a query.
        similarity: ``cosine`` or ``dot``.
        index: a kind of ``sentemb index`` (flat, sq8, hnsw, ivf-pq, …), ``auto``, or a FAISS factory string, that is
            built for these documents; None: every document is compared.
        seed: of the index's training sample.

    Raises:
        SearchError: FAISS does not know the kind.
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
        return built.search_vectors(queries, min(k, len(documents)))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


def bm25_search(documents: Sequence[str], queries: Sequence[str], k: int) -> Hits:
    """The k best documents of every query by BM25 (Lucene's variant, k1 = 1.5, b = 0.75); words without English stop
    words, lower-cased.

    Args:
        documents: Texts.
        queries: Texts.
        k: At most this many hits a query.

    Returns:
        Positions in ``documents`` and scores, best first; only hits that share a word have a score above 0.
    """
    import bm25s

    k = min(k, len(documents))
    if not k or not queries:
        return Hits(np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # bm25s probes for JAX and numba
        tokens = bm25s.tokenize(list(documents), stopwords="en", show_progress=False)
        if not tokens.vocab or all(not ids for ids in tokens.ids):
            return Hits(np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32))
        index = bm25s.BM25()
        index.index(tokens, show_progress=False)
        asked = bm25s.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
        ids, scores = index.retrieve(asked, k=k, show_progress=False)
    return Hits(np.asarray(ids, dtype=np.int64), np.asarray(scores, dtype=np.float32))


def fuse(
    runs: Sequence[Mapping[str, Mapping[str, float]]], *, constant: int = 60, k: int = 1000
) -> dict[str, dict[str, float]]:
    """Reciprocal rank fusion: a document's score is Σ over runs of 1 / (constant + rank).

    Source: Cormack, Clarke & Büttcher 2009, SIGIR; constant 60 is theirs.
    """
    fused: dict[str, dict[str, float]] = {}
    for run in runs:
        for query, hits in run.items():
            total = fused.setdefault(query, {})
            ranked = sorted(hits.items(), key=lambda hit: (hit[1], hit[0]), reverse=True)
            for rank, (document, _) in enumerate(ranked, start=1):
                total[document] = total.get(document, 0.0) + 1 / (constant + rank)
    return {
        query: dict(sorted(total.items(), key=lambda hit: (hit[1], hit[0]), reverse=True)[:k])
        for query, total in fused.items()
    }
