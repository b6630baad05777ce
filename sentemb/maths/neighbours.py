"""Exact nearest neighbours: the k largest inner products or cosines, or the k smallest squared distances; and several
rankings as one.

This is the only exact search of sentemb. Companions, mining, evaluation, tuning and exact indexes call it; the products
themselves are in ``inner_products``, so that importing this module does not load torch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.types import Hits

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
Metric = Literal["cosine", "dot", "l2"]
Name = TypeVar("Name", bound=Hashable)
BLOCK_ROWS = 262_144  # vectors that are copied, to a GPU or to unit length, at a time
QUERY_ROWS = 8192  # queries whose results are merged at a time
GATHERED_BYTES = 32 << 20  # vectors of candidates in memory at a time
_LAST = np.iinfo(np.int64).max


def best_device() -> str:
    """The GPU where there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def nearest(vectors: Vectors, k: int) -> tuple[Ids, Vectors]:
    """The k other rows with the largest inner product, for every row (rows, d): row numbers and products, (rows, k),
    best first. A row is never its own neighbour; an equal row is."""
    rows = len(vectors)
    if not 1 <= k < rows:
        raise SearchError(f"nearest: k = {k} among {rows} rows; k must be from 1 to {max(rows - 1, 0)}")
    neighbours = without_own(top(vectors, vectors, k + 1), np.arange(rows))
    return neighbours.ids, neighbours.scores


def top(
    queries: Vectors, vectors: Vectors, k: int, *, metric: Metric = "dot", device: str | None = None
) -> Hits:
    """The ``min(k, rows)`` best rows of ``vectors`` (rows, d) for every query, best first; equal scores by row."""
    device = device or best_device()
    step = BLOCK_ROWS if metric == "cosine" or device != "cpu" else max(len(vectors), 1)  # those are copied
    blocks = (vectors[start : start + step] for start in range(0, len(vectors), step))
    return top_of_blocks(queries, blocks, k, metric=metric, device=device)


def top_of_blocks(
    queries: Vectors, blocks: Iterable[Vectors], k: int, *, metric: Metric = "dot", device: str | None = None
) -> Hits:
    """``top`` of vectors that come block by block; row numbers count over all blocks."""
    from sentemb.maths.inner_products import ExactSearch, unit

    best, first = nothing(len(queries), 0, metric), 0
    if metric == "cosine":
        queries, blocks = unit(queries), map(unit, blocks)
    for block in blocks:
        if k > 0 and len(block):
            scores, ids = ExactSearch.of(block, device or best_device(), metric).top(queries, min(k, len(block)))
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
    """The score of an empty place."""
    return np.float32(np.inf if metric == "l2" else -np.inf)


def merged(results: Sequence[Hits], k: int, metric: Metric) -> Hits:
    """The k best of several results of the same queries; equal scores by id, empty places (id -1) last."""
    queries, only = len(results[0].ids), results[0]
    is_full = len(results) == 1 and only.ids.shape[1] == k and only.ids.min(initial=0) >= 0
    if is_full and not (only.scores[:, 1:] == only.scores[:, :-1]).any():
        return only
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
    step = max(1, GATHERED_BYTES // max(4 * ids.shape[1] * queries.shape[1], 1))
    for part in (slice(start, start + step) for start in range(0, len(ids), step)):
        candidates = vectors_of(np.maximum(ids[part], 0).ravel()).reshape(*ids[part].shape, -1)
        if metric == "l2":
            candidates = candidates - queries[part, None, :]
            scores[part] = np.einsum("qcd,qcd->qc", candidates, candidates)
        else:
            scores[part] = np.matmul(candidates, queries[part, :, None])[:, :, 0]
    scores[ids < 0] = worst(metric)
    return scores


def ordered(ids: Ids, scores: Vectors, k: int, metric: Metric) -> Hits:
    """The k best of each query's candidates, best first; equal scores stay in their order."""
    order = np.argsort(scores if metric == "l2" else -scores, axis=1, kind="stable")[:, :k]
    return Hits(ids=np.take_along_axis(ids, order, axis=1), scores=np.take_along_axis(scores, order, axis=1))


def reciprocal_rank_fusion(rankings: Iterable[Sequence[Name]], constant: int = 60) -> dict[Name, float]:
    """score(d) = Σ over rankings (each best first) of 1 / (constant + rank of d), ranks from 1.

    Source: Cormack, Clarke & Büttcher 2009, SIGIR, "Reciprocal rank fusion outperforms Condorcet…", equation 1.
    """
    scores: dict[Name, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + 1 / (constant + rank)
    return scores
