"""Looking after an index: statistics, verification, and the least search effort that reaches a target recall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric, top_of_blocks, without_own
from sentemb.search.store import manifest as manifests
from sentemb.search.store.change import changing
from sentemb.search.store.generation import Access, Generation
from sentemb.search.store.manifest import Tuned, damaged
from sentemb.search.store.searching import Effort, search_segments
from sentemb.search.store.segment import Segment, verify_file
from sentemb.search.store.writing import BLOCK
from sentemb.search.vectors.kind import Vectors

K = 10
QUERIES = 256
MAX_OVERSAMPLE = 64


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What an index holds and takes."""

    documents: int
    deleted: int
    cut: int  # documents longer than the model reads: no search sees their end
    segments: int
    generation: int
    kind: str
    description: str
    reason: str
    metric: str
    dimension: int
    words: str
    model: str | None
    digest: str | None
    bytes: int
    bytes_per_vector: float  # of the vector files alone
    tuned: Tuned | None


def stats(generation: Generation) -> Stats:
    """Figures from the manifest."""
    made = generation.manifest
    vectors = sum(segment.index.bytes for segment in made.segments)
    return Stats(
        documents=made.live, deleted=made.rows - made.live, cut=sum(segment.cut for segment in made.segments),
        segments=len(made.segments), generation=made.generation, kind=str(made.kind["use"]),
        description=made.description, reason=made.reason, metric=made.metric, dimension=made.dimension,
        words=made.words, model=made.model.source if made.model else None,
        digest=made.model.digest if made.model else None, bytes=sum(file.bytes for file in made.files),
        bytes_per_vector=vectors / max(made.rows, 1), tuned=made.tuned,
    )


def verify(access: Access, known: Generation) -> tuple[Generation, int]:
    """Check everything that can be checked; gives the newest generation and the number of its files.

    The checksums, SQLite's own integrity, and that live ids are unique.

    Raises:
        SearchError: names the first fault.
    """
    made = manifests.read(access.folder)
    for file in made.files:
        try:
            verify_file(access.folder, file)
        except FileNotFoundError:
            raise damaged(access.folder / file.name, "is missing") from None
    generation = access.open(known)
    seen: Counter[str] = Counter()
    for segment in generation.segments:
        segment.documents.check()
        for row, name in enumerate(segment.documents.ids(0, segment.rows)):
            if segment.live is None or segment.live[row]:
                seen[str(name)] += 1
    twice = [name for name, count in seen.items() if count > 1]
    if (twice and made.has_next_id) or sum(seen.values()) != made.live:  # format 1 took 3 and "3" for two ids
        count = sum(seen.values())
        raise damaged(access.folder, f"{len(twice)} ids occur twice, {count} live documents of {made.live}")
    return generation, len(made.files)


def tune_on(access: Access, known: Generation, queries: Vectors, target_recall: float) -> Generation:
    """Tune the search effort to real queries and store it; deleted rows count as the index counts them: not at all.

    The truth is exact search over the vectors that the index keeps (half precision where it re-scores), so a
    quantised kind without re-scoring is measured against its own codes.

    Raises:
        SearchError: no queries, an empty index, or a target outside (0, 1].
    """
    if not 0 < target_recall <= 1:
        raise SearchError(f"target_recall = {target_recall}; allowed: above 0, up to 1")
    vectors = known.rule.apply(queries, "queries")
    with changing(access, known) as change:
        segments = change.segments
        if len(vectors) == 0 or not change.manifest.live:
            raise SearchError(f"{access.folder}: tuning needs queries and documents")
        live = np.concatenate([
            np.ones(segment.rows, dtype=bool) if segment.live is None else segment.live for segment in segments
        ])
        blocks = (
            segment.exact_vectors(np.arange(start, min(start + BLOCK, segment.rows)))
            for segment in segments for start in range(0, segment.rows, BLOCK)
        )
        metric = change.manifest.metric
        count = min(K + int((~live).sum()), BLOCK)
        truth = top_of_blocks(vectors, blocks, count, metric="l2" if metric == "l2" else "dot", device="cpu").ids
        is_dead = (truth >= 0) & ~live[truth]
        order = np.argsort(is_dead | (truth < 0), axis=1, kind="stable")[:, :K]
        truth = np.where(np.take_along_axis(is_dead, order, axis=1), -1, np.take_along_axis(truth, order, axis=1))
        tuned = tune(segments, vectors, truth, None, metric=metric, target=target_recall, measured_on="queries")
        return change.finish(replace(change.manifest, tuned=tuned))


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
    metric: Metric, target: float, measured_on: Literal["documents", "queries"] = "documents",
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
        harder = Effort(effort=effort, oversample=oversample, can_grow=False)
        hits = search_segments(segments, queries, wide, metric, harder)
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
