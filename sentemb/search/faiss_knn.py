"""Exact nearest neighbours among a set's own rows, without an index to keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import NumericError, SearchError


def nearest(vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k other rows with the largest inner product, for every row.

    Runs in blocks, on the GPU where there is one: memory is the vectors, the result and a few megabytes.

    Args:
        vectors: (rows, d); unit length for cosines.
        k: neighbours per row, at most rows - 1.

    Returns:
        Row numbers (rows, k) int64 and inner products (rows, k) float32, best first; a row itself is never among
        its own neighbours, an equal row elsewhere is.

    Raises:
        SearchError: the shape or k is impossible.
        NumericError: a value is NaN or infinite.
    """
    if vectors.ndim != 2:
        raise SearchError(f"nearest: vectors of shape {vectors.shape}; expected (rows, d)")
    rows = len(vectors)
    if not 1 <= k < rows:
        raise SearchError(f"nearest: k = {k} among {rows} rows; k must be from 1 to {max(rows - 1, 0)}")
    found, similarity = inner_product_top(vectors, vectors, k + 1)
    own = found == np.arange(rows)[:, None]
    # where more than k rows equal this one, its own entry may be missing: then the last entry goes
    own[~own.any(axis=1), -1] = True
    keep = ~own
    return found[keep].reshape(rows, k), similarity[keep].reshape(rows, k)


def inner_product_top(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Row numbers and values (queries, k) of the k largest inner products, best first; k ≤ number of vectors.

    Raises:
        NumericError: a value is NaN or infinite.
    """
    values, found = exact_search(vectors)(queries, k)
    return found, values


def exact_search(
    vectors: NDArray[np.float32],
) -> Callable[[NDArray[np.float32], int], tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """(queries, k) -> values and row numbers of the k largest inner products; the vectors are made ready once.

    Raises:
        NumericError: a vector's value, or later a query's, is NaN or infinite.
    """
    from sentemb.search.torch_knn import ExactSearch, best_device

    # torch's product is about three times as fast as faiss.knn here (MKL against OpenBLAS, measured)
    search = ExactSearch(_finite("vectors", vectors), best_device())
    return lambda queries, k: search.top(_finite("queries", queries), k)


def _finite(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    array = np.ascontiguousarray(array, dtype=np.float32)
    # one sum instead of a mask as large as the matrix; a cancelling inf - inf is NaN, so it is seen too
    if not np.isfinite(array.sum(dtype=np.float64)):
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise NumericError(f"{name}: row {row} holds NaN or infinity")
    return array


def top_of_block(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int, metric: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and rows (queries, k) of the k best of ``vectors``: inner products, or squared distances for ``l2``."""
    import faiss

    scores, rows = faiss.knn(
        queries, vectors, k, metric=faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    )
    return scores, rows
