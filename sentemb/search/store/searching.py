"""Searching several segments as one (filters, effort, exact re-scoring, merging), and the effort that recall needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric, compared, merged, nothing, ordered, top, top_of_blocks, without_own
from sentemb.search.store.documents import Condition
from sentemb.search.store.generation import Generation
from sentemb.search.store.manifest import Tuned
from sentemb.search.store.segment import BLOCK, Segment
from sentemb.search.vectors.kind import Mask, Vectors
from sentemb.types import Hits

K = 10  # neighbours whose recall is tuned
MAX_OVERSAMPLE = 64
GIVEN_UP = 4096  # effort beyond which a step of tuning that gains nothing is the last one
FEW = 2_000  # allowed rows up to which they are compared one by one, exactly


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to look."""

    effort: int | None = None  # nprobe or efSearch
    oversample: int = 4  # candidates per wanted neighbour that are re-scored exactly, where vectors are kept for it
    can_grow: bool = True  # look harder for queries that find fewer than they could; tuning measures without


def check_k(k: int) -> None:
    """Raises SearchError where k is below 1."""
    if k < 1:
        raise SearchError(f"k = {k}; at least one result must be asked for")


def search(
    generation: Generation, vectors: Vectors, k: int, *, condition: Condition | None = None, effort: int | None = None
) -> Hits:
    """The k best documents of every raw query vector, as positions in the generation; best first.

    Args:
        effort: nprobe or efSearch; None: what the index was tuned to.
    """
    check_k(k)
    queries, k = generation.rule.apply(vectors, "queries"), min(k, max(generation.manifest.rows, 1))
    return search_segments(
        generation.segments, queries, k, generation.manifest.metric, effort_of(generation, effort), condition
    )


def effort_of(generation: Generation, effort: int | None = None) -> Effort:
    """The given effort, or the tuned one."""
    if effort is not None and effort < 1:
        raise SearchError(f"effort = {effort}; at least 1")
    tuned = generation.manifest.tuned
    if tuned is None:
        return Effort(effort=effort)
    return Effort(effort=tuned.effort if effort is None else effort, oversample=tuned.oversample)


def search_segments(
    segments: Sequence[Segment], queries: Vectors, k: int, metric: Metric, effort: Effort,
    condition: Condition | None = None,
) -> Hits:
    """The k best rows of all segments, as positions counted over them; best first."""
    results: list[Hits] = []
    first = 0
    for segment in segments:
        allowed = segment.allowed(condition)
        if allowed is None or allowed.any():
            hits = search_segment(segment, queries, k, metric, effort, allowed)
            ids = np.where(hits.ids >= 0, hits.ids + first, -1) if first else hits.ids
            results.append(Hits(ids=ids, scores=hits.scores))
        first += segment.rows
    return merged(results or [nothing(len(queries), 0, metric)], k, metric)


def search_segment(
    segment: Segment, queries: Vectors, k: int, metric: Metric, effort: Effort, allowed: Mask | None
) -> Hits:
    """The k best rows of one segment."""
    share = 1.0
    if allowed is not None:
        count = int(np.count_nonzero(allowed))
        if count <= FEW and (segment.half is not None or segment.vectors.keeps_vectors):
            return _compare_all(segment, queries, k, metric, np.flatnonzero(allowed))
        share = count / segment.rows
    wanted = min(k * effort.oversample if segment.half is not None else k, segment.rows)
    steps = _effort_for(segment, effort, wanted, share)
    scores, rows = segment.vectors.search(queries, wanted, effort=steps, allowed=allowed)
    hits = Hits(ids=rows, scores=scores)
    if effort.can_grow and steps is not None:
        _fill_up(segment, queries, hits, min(k, round(share * segment.rows)), steps, allowed)
    if segment.half is not None:
        exact = compared(queries, hits.ids, segment.exact_vectors, metric=metric)
        return ordered(hits.ids, exact, min(k, wanted), metric)
    return hits


def _fill_up(
    segment: Segment, queries: Vectors, hits: Hits, wanted: int, effort: int, allowed: Mask | None
) -> None:
    """Look harder for the queries with fewer than ``wanted`` rows, until they have them or all was seen."""
    short = np.flatnonzero(hits.ids[:, wanted - 1] < 0)
    knob = segment.vectors.knob if len(short) else None
    while len(short) and knob is not None and effort < knob.largest:
        effort = min(4 * effort, knob.largest)
        hits.scores[short], hits.ids[short] = segment.vectors.search(
            queries[short], hits.ids.shape[1], effort=effort, allowed=allowed
        )
        short = short[hits.ids[short, wanted - 1] < 0]


def _compare_all(segment: Segment, queries: Vectors, k: int, metric: Metric, rows: NDArray[np.int64]) -> Hits:
    if len(queries) == 1:  # preparing a product of many costs more than this one
        return ordered(rows[None], compared(queries, rows[None], segment.exact_vectors, metric=metric), k, metric)
    hits = top(queries, segment.exact_vectors(rows), k, metric="l2" if metric == "l2" else "dot", device="cpu")
    return Hits(ids=rows[hits.ids], scores=hits.scores)


def _effort_for(segment: Segment, effort: Effort, wanted: int, share: float) -> int | None:
    """Where only a share of the rows may be found, look at correspondingly more of them."""
    knob = segment.vectors.knob
    if knob is None:
        return None
    base = max(effort.effort or knob.default, wanted if knob.is_beam else 0)
    return min(math.ceil(base / max(share, 1e-9)), knob.largest)


def least_effort(
    generation: Generation, queries: Vectors, target: float, *, vectors_at: Callable[[NDArray[np.int64]], Vectors],
    own: NDArray[np.int64] | None = None,
) -> Tuned:
    """Find the least effort (and number of re-scored candidates) with recall@10 of at least ``target``.

    Doubles both until the target is met, then lowers one after the other. Where the kind cannot reach the target,
    ``reached`` is false, and the least is found that gives its best recall.

    Args:
        vectors_at: vectors at positions of the generation, among which the true neighbours are searched.
        own: positions of the queries themselves where they were taken from the index.
    """
    segments, wide = generation.segments, K + (own is not None)
    metric: Metric = "l2" if generation.manifest.metric == "l2" else "dot"  # an index of cosines keeps unit vectors
    live = np.concatenate([first + s.live_rows for s, first in zip(segments, generation.starts, strict=True)])
    blocks = (vectors_at(live[start : start + BLOCK]) for start in range(0, len(live), BLOCK))
    truth = top_of_blocks(queries, blocks, wide, metric=metric, device="cpu")
    truth = Hits(ids=live[truth.ids], scores=truth.scores)

    def without_query(hits: Hits) -> NDArray[np.int64]:
        return hits.ids if own is None else without_own(hits, own).ids

    def measure(effort: int, oversample: int) -> float:
        harder = Effort(effort=effort, oversample=oversample, can_grow=False)
        neighbours = without_query(search_segments(segments, queries, wide, metric, harder))
        wanted = without_query(truth)
        return float((wanted[:, :, None] == neighbours[:, None, :]).any(axis=2).sum() / max(wanted.size, 1))

    knob = max(segments, key=lambda segment: segment.rows).vectors.knob
    ceiling = knob.largest if knob is not None else 1
    effort = least = min(knob.least, ceiling) if knob is not None else 1
    is_rescored = any(segment.half is not None for segment in segments)
    oversample, most = (2, MAX_OVERSAMPLE) if is_rescored else (1, 1)
    recall = measure(effort, oversample)
    while recall < target and (effort < ceiling or oversample < most):
        before = recall
        effort, oversample = min(2 * effort, ceiling), min(2 * oversample, most)
        recall = measure(effort, oversample)
        if recall <= before + 1e-4 and effort > GIVEN_UP:
            break
    goal = min(target, recall)
    while oversample > 2 and (fewer := measure(effort, oversample // 2)) >= goal:
        oversample, recall = oversample // 2, fewer
    low = least - 1
    while effort - low > max(1, effort // 16):  # recall grows with effort, up to noise
        middle = (low + effort) // 2
        if (lower := measure(middle, oversample)) >= goal:
            effort, recall = middle, lower
        else:
            low = middle
    return Tuned(
        effort=None if knob is None else effort, oversample=oversample, target_recall=target, recall=recall,
        queries=len(queries), reached=recall >= target, measured_on="queries" if own is None else "documents",
    )
