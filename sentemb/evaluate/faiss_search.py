"""A FAISS index of any kind in place of the exact search, to see what its approximation costs on a task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentemb.evaluate.mteb_encoder import Search
from sentemb.search.faiss_vectors import VectorIndex
from sentemb.search.kinds import choose, training_rows
from sentemb.types import Hits, Similarity

Vectors = NDArray[np.float32]


def index_search(kind: str, similarity: Similarity, *, seed: int = 42) -> Search:
    """A search through an index that is built for every corpus anew.

    Args:
        kind: A kind of ``sentemb index`` (flat, sq8, hnsw, ivf-pq, …), ``auto``, or a FAISS factory string.
        similarity: ``cosine`` or ``dot``.
        seed: Of the training sample.

    Raises:
        SearchError: FAISS does not know the kind (when it searches).
    """

    def search(queries: Vectors, documents: Vectors, k: int) -> Hits:
        if similarity == "cosine":
            queries, documents = _unit(queries), _unit(documents)
        rows, width = documents.shape
        chosen = choose(kind, rows=rows, dimension=width, memory_bytes=None, target_recall=0.95, rescore=False)
        index = VectorIndex.create(chosen.factory, width, "dot")
        if not index.is_trained:
            most = training_rows(chosen.factory, rows, width)
            index.prepare_training(seed, most)
            sample = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
            index.train(documents[sample])
        index.add(documents)
        scores, found = index.search(queries, min(k, rows))
        return Hits(found, np.where(found >= 0, scores, -np.inf).astype(np.float32))

    return search


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
