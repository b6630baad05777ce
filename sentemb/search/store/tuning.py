"""How hard to look: the least search effort that reaches a target recall on a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sentemb.maths.neighbours import Metric, without_own
from sentemb.search.store.manifest import Tuned
from sentemb.search.store.segment import Segment
from sentemb.types import Hits

Vectors = NDArray[np.float32]
K = 10
QUERIES = 256
MAX_OVERSAMPLE = 64


class Search(Protocol):
    """How several segments are searched as one, with this effort and no more."""

    def __call__(
        self, segments: Sequence[Segment], queries: Vectors, k: int, metric: Metric, *, effort: int | None,
        oversample: int,
    ) -> Hits: ...


def sample_rows(rows: int, seed: int) -> NDArray[np.int64]:
    """Rows that serve as held-out queries."""
    generator = np.random.default_rng(seed + 1)  # another draw than the training sample
    return np.sort(generator.choice(rows, size=min(QUERIES, rows), replace=False)).astype(np.int64)


def recall(ids: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean share of the true neighbours that were found; -1 in ``truth`` is no neighbour."""
    wanted = truth >= 0
    hit = (truth[:, :, None] == ids[:, None, :]).any(axis=2) & wanted
    return float(hit.sum() / max(wanted.sum(), 1))


def tune(
    segments: Sequence[Segment], queries: Vectors, truth: NDArray[np.int64], own: NDArray[np.int64] | None, *,
    metric: Metric, target: float, search: Search, measured_on: Literal["documents", "queries"] = "documents",
) -> Tuned:
    """Find the least effort (and number of re-scored candidates) with recall@10 of at least ``target``.

    Doubles whichever knob gains more until the target is met, then bisects the effort. Where the kind cannot reach
    the target, the best that was found is kept and ``reached`` is false.

    Args:
        truth: (queries, 10) exact neighbours, own rows left out.
        own: rows of the queries themselves where they were taken from the index.
    """
    wide = K + (own is not None)

    def measure(effort: int | None, oversample: int) -> float:
        hits = search(segments, queries, wide, metric, effort=effort, oversample=oversample)
        return recall(hits.ids if own is None else without_own(hits, own).ids, truth)

    knob = max(segments, key=lambda segment: segment.rows).vectors.knob
    ceiling = knob.largest if knob is not None else 0
    least = min(knob.least, ceiling) if knob is not None else 0
    effort = least or None
    is_rescored = any(segment.half is not None for segment in segments)
    oversample, low = 2 if is_rescored else 1, least - 1
    reached = measure(effort, oversample)
    while reached < target:
        options: list[tuple[float, int | None, int]] = []
        if effort is not None and effort < ceiling:
            wider = min(effort * 2, ceiling)
            options.append((measure(wider, oversample), wider, oversample))
        if is_rescored and oversample < MAX_OVERSAMPLE:
            options.append((measure(effort, oversample * 2), effort, oversample * 2))
        gaining = [option for option in options if option[0] > reached + 1e-4]
        # a step may gain nothing and the next one something; a graph is given up at 4096
        options = gaining or [option for option in options if option[1] != effort and (option[1] or 0) <= 4096]
        if not options:
            break
        best = max(options)
        low = effort or 0 if best[1] != effort else low
        reached, effort, oversample = best
    if effort is not None and reached >= target:
        effort, reached = _bisect(lambda e: measure(e, oversample), low, effort, reached, target)
    return Tuned(
        effort=effort, oversample=oversample, target_recall=target, recall=reached, queries=len(queries),
        reached=reached >= target, measured_on=measured_on,
    )


def _bisect(
    measure: Callable[[int], float], low: int, high: int, reached: float, target: float
) -> tuple[int, float]:
    """The least effort in (low, high] that still meets the target (recall grows with effort, up to noise)."""
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        recall_there = measure(middle)
        if recall_there >= target:
            high, reached = middle, recall_there
        else:
            low = middle
    return high, reached
