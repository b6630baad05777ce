"""A search index of any kind in place of the exact search, to see what its approximation costs on a task.

``MtebEncoder(model, search=index_search("hnsw", "cosine"))`` is the ``SearchProtocol`` of mteb on a ``SearchIndex``.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from sentemb.evaluate.mteb_encoder import Search
from sentemb.search import SearchIndex
from sentemb.types import Hits, Similarity

Vectors = NDArray[np.float32]


def index_search(kind: str, similarity: Similarity, *, seed: int = 42) -> Search:
    """A search through an index that is built, and its effort tuned, for every corpus anew.

    Args:
        kind: A kind of ``sentemb index`` (flat, sq8, hnsw, ivf-pq, …), ``auto``, or a FAISS factory string.
        similarity: ``cosine`` or ``dot``.
        seed: Of the training sample.

    Raises:
        SearchError: FAISS does not know the kind (when it searches).
    """

    def search(queries: Vectors, documents: Vectors, k: int) -> Hits:
        if similarity == "cosine":  # here, because the index refuses zero vectors, which a task's empty text may be
            queries, documents = _unit(queries), _unit(documents)
        with (
            TemporaryDirectory(prefix="sentemb-eval-") as folder,
            SearchIndex.build(folder, None, vectors=documents, kind=kind, metric="dot", seed=seed) as index,
        ):
            return index.search_vectors(queries, min(k, len(documents)))

    return search


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
