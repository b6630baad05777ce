"""Looking after an index: statistics, verification, and the least search effort that reaches a target recall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric, top_of_blocks, without_own
from sentemb.search.store import manifest as manifests
from sentemb.search.store.changes import changing
from sentemb.search.store.generation import Generation, open_generation
from sentemb.search.store.manifest import Tuned, damaged
from sentemb.search.store.searching import Effort, search_segments
from sentemb.search.store.segment import BLOCK, verify_file
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Hits

K = 10
QUERIES = 256
MAX_OVERSAMPLE = 64
GIVEN_UP = 4096  # effort beyond which a step that gains nothing is the last one


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


def verify(known: Generation) -> tuple[Generation, int]:
    """Check everything that can be checked; gives the newest generation and the number of its files.

    The checksums, SQLite's own integrity, and that live ids are unique.

    Raises:
        SearchError: names the first fault.
    """
    made = manifests.read(known.folder)
    for file in made.files:
        try:
            verify_file(known.folder, file)
        except FileNotFoundError:
            raise damaged(known.folder / file.name, "is missing") from None
    generation = open_generation(known.folder, known=known, is_mapped=known.is_mapped)
    seen: Counter[str] = Counter()
    for segment in generation.segments:
        segment.documents.check()
        names = segment.documents.ids(0, segment.rows)
        seen.update(str(names[row]) for row in segment.live_rows.tolist())
    count, twice = seen.total(), sum(times > 1 for times in seen.values())
    if (twice and made.has_next_id) or count != made.live:  # format 1 took 3 and "3" for two ids
        raise damaged(known.folder, f"{twice} ids occur twice, {count} live documents of {made.live}")
    return generation, len(made.files)


def tune_on(known: Generation, queries: Vectors, target_recall: float, wait_s: float) -> Generation:
    """Tune the search effort to real queries and store it.

    The truth is exact search over the vectors that the index keeps (half precision where it re-scores), so a
    quantised kind without re-scoring is measured against its own codes.

    Raises:
        SearchError: no queries, an empty index, or a target outside (0, 1].
    """
    if not 0 < target_recall <= 1:
        raise SearchError(f"target_recall = {target_recall}; allowed: above 0, up to 1")
    vectors = known.rule.apply(queries, "queries")
    with changing(known, wait_s) as change:
        if len(vectors) == 0 or len(change.before) == 0:
            raise SearchError(f"{known.folder}: tuning needs queries and documents")
        tuned = tune(change.before, vectors, target_recall, vectors_at=change.before.vectors_at)
        return change.finish(replace(change.manifest, tuned=tuned))


def sample_rows(rows: int, seed: int) -> NDArray[np.int64]:
    """Rows that serve as held-out queries."""
    generator = np.random.default_rng(seed + 1)  # another draw than the training sample
    return np.sort(generator.choice(rows, size=min(QUERIES, rows), replace=False)).astype(np.int64)


def tune(
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
        found = without_query(search_segments(segments, queries, wide, metric, harder))
        wanted = without_query(truth)
        return float((wanted[:, :, None] == found[:, None, :]).any(axis=2).sum() / max(wanted.size, 1))

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
