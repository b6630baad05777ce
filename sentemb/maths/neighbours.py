"""Exact nearest neighbours: the k largest inner products or cosines, or the k smallest squared distances.

This is the only exact search of sentemb. Companions, mining, evaluation, tuning and exact indexes call it; the products
themselves are in ``inner_products``, so that importing this module does not load torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.types import Hits

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
Metric = Literal["cosine", "dot", "l2"]
BLOCK_ROWS = 262_144  # vectors that are copied, to a GPU or to unit length, at a time
QUERY_ROWS = 8192  # queries whose results are merged at a time
GATHERED_BYTES = 32 << 20  # vectors of candidates in memory at a time
_LAST = np.iinfo(np.int64).max


def best_device() -> str:
    """The GPU where there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def nearest(vectors: Vectors, k: int) -> tuple[Ids, Vectors]:
    """The k other rows with the largest inner product, for every row.

    Args:
        vectors: (rows, d); unit length for cosines.
        k: neighbours per row, at most rows - 1.

    Returns:
        Row numbers and inner products, both (rows, k), best first. A row is never its own neighbour; an equal row is.

    Raises:
        SearchError: the shape or k is impossible.
        NumericError: a value is NaN or infinite.
    """
    if vectors.ndim != 2:
        raise SearchError(f"nearest: vectors of shape {vectors.shape}; expected (rows, d)")
    rows = len(vectors)
    if not 1 <= k < rows:
        raise SearchError(f"nearest: k = {k} among {rows} rows; k must be from 1 to {max(rows - 1, 0)}")
    neighbours = without_own(top(vectors, vectors, k + 1), np.arange(rows))
    return neighbours.ids, neighbours.scores


def top(
    queries: Vectors, vectors: Vectors, k: int, *, metric: Metric = "dot", device: str | None = None
) -> Hits:
    """The ``min(k, rows)`` best rows of ``vectors`` (rows, d) for every query, best first; equal scores by row.

    Raises:
        NumericError: a value is NaN or infinite.
    """
    device = device or best_device()
    is_copied = metric == "cosine" or device != "cpu"
    step = BLOCK_ROWS if is_copied else max(len(vectors), 1)
    blocks = (vectors[start : start + step] for start in range(0, len(vectors), step))
    return top_of_blocks(queries, blocks, k, metric=metric, device=device)


def top_of_blocks(
    queries: Vectors, blocks: Iterable[Vectors], k: int, *, metric: Metric = "dot", device: str | None = None
) -> Hits:
    """``top`` of vectors that come block by block; row numbers count over all blocks."""
    from sentemb.maths.inner_products import ExactSearch, unit

    if metric == "cosine":
        queries = unit(queries)
    best = nothing(len(queries), 0, metric)
    first = 0
    for block in blocks:
        if k > 0 and len(block):
            exact = ExactSearch.of(unit(block) if metric == "cosine" else block, device or best_device(), metric)
            scores, ids = exact.top(queries, min(k, len(block)))
            hits = Hits(ids=ids + first, scores=scores)
            best = merged([best, hits], min(k, best.ids.shape[1] + len(block)), metric) if first else hits
        first += len(block)
    return best


def nothing(queries: int, k: int, metric: Metric) -> Hits:
    """A result of k empty places for every query: id -1, worst score."""
    return Hits(
        ids=np.full((queries, k), -1, dtype=np.int64), scores=np.full((queries, k), worst(metric), dtype=np.float32)
    )


def worst(metric: Metric) -> np.float32:
    """The score of an empty place: infinitely far, or infinitely unlike."""
    return np.float32(np.inf if metric == "l2" else -np.inf)


def merged(results: Sequence[Hits], k: int, metric: Metric) -> Hits:
    """The k best of several results of the same queries; equal scores by id, empty places (id -1) last."""
    queries = len(results[0].ids)
    if len(results) == 1 and results[0].ids.shape[1] == k:
        only = results[0]
        is_full = only.ids.size and only.ids[:, -1].min() >= 0  # empty places come last
        scores = only.scores if is_full else np.where(only.ids < 0, worst(metric), only.scores)
        if not (scores[:, 1:] == scores[:, :-1]).any():
            return Hits(ids=only.ids, scores=scores)
    best = nothing(queries, k, metric)
    for part in (slice(start, start + QUERY_ROWS) for start in range(0, queries, QUERY_ROWS)):
        ids = np.concatenate([hits.ids[part] for hits in results], axis=1)
        scores = np.concatenate([hits.scores[part] for hits in results], axis=1)
        scores = np.where(ids < 0, worst(metric), scores)
        order = np.lexsort((np.where(ids < 0, _LAST, ids), scores if metric == "l2" else -scores), axis=1)[:, :k]
        best.ids[part, : order.shape[1]] = np.take_along_axis(ids, order, axis=1)
        best.scores[part, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
    return best


def without_own(hits: Hits, own: Ids) -> Hits:
    """Results without each query's own id, one place fewer; where equal rows took its place, the last one goes."""
    is_own = hits.ids == own[:, None]
    is_own[~is_own.any(axis=1), -1:] = True
    shape = len(own), max(hits.ids.shape[1] - 1, 0)
    return Hits(ids=hits.ids[~is_own].reshape(shape), scores=hits.scores[~is_own].reshape(shape))


def compared(
    queries: Vectors, ids: Ids, vectors_of: Callable[[Ids], Vectors], *, metric: Metric = "dot"
) -> Vectors:
    """Scores of given candidates, (queries, c); ``vectors_of`` gives their vectors, 32 MiB of them at a time."""
    scores = np.full(ids.shape, worst(metric), dtype=np.float32)
    for part in _steps(ids.shape, queries.shape[1]):
        candidates = vectors_of(np.maximum(ids[part], 0).ravel()).reshape(*ids[part].shape, -1)
        if metric == "l2":
            candidates = candidates - queries[part, None, :]
            scores[part] = np.einsum("qcd,qcd->qc", candidates, candidates)
        else:
            scores[part] = np.matmul(candidates, queries[part, :, None])[:, :, 0]
    scores[ids < 0] = worst(metric)
    return scores


def _steps(shape: tuple[int, ...], width: int) -> Iterator[slice]:
    step = max(1, GATHERED_BYTES // max(4 * shape[1] * width, 1))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def ordered(ids: Ids, scores: Vectors, k: int, metric: Metric) -> Hits:
    """The k best of each query's candidates, best first; equal scores stay in their order."""
    order = np.argsort(scores if metric == "l2" else -scores, axis=1, kind="stable")[:, :k]
    return Hits(ids=np.take_along_axis(ids, order, axis=1), scores=np.take_along_axis(scores, order, axis=1))
