"""Searching several segments as one: filters, effort, exact re-scoring, merging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric, compared, merged, nothing, ordered, top
from sentemb.search.store.documents import Condition
from sentemb.search.store.generation import Generation
from sentemb.search.store.segment import Segment
from sentemb.search.vectors.kind import Mask, Vectors
from sentemb.types import Hits

FEW = 2_000  # allowed rows up to which they are compared one by one, exactly


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to look."""

    effort: int | None = None  # nprobe or efSearch
    oversample: int = 4  # candidates per wanted neighbour that are re-scored exactly, where vectors are kept for it
    can_grow: bool = True  # look harder for queries that find fewer than they could; tuning measures without


def check_k(k: int) -> None:
    """Refuse to look for no results.

    Raises:
        SearchError: k is below 1.
    """
    if k < 1:
        raise SearchError(f"k = {k}; at least one result must be asked for")


def search(
    generation: Generation, vectors: Vectors, k: int, *, condition: Condition | None = None, effort: int | None = None
) -> Hits:
    """The k best documents of every query, as positions in the generation; best first.

    Args:
        vectors: raw query vectors.
        effort: nprobe or efSearch; None: what the index was tuned to.
    """
    check_k(k)
    manifest = generation.manifest
    queries = generation.rule.apply(vectors, "queries")
    k = min(k, max(manifest.rows, 1))
    return search_segments(generation.segments, queries, k, manifest.metric, effort_of(generation, effort), condition)


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
    knob = segment.vectors.knob
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
    base = effort.effort or knob.default
    if knob.is_beam:
        base = max(base, wanted)
    return min(math.ceil(base / max(share, 1e-9)), knob.largest)
