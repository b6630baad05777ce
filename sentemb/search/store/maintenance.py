"""Looking after an index: statistics, verification, tuning on real queries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from sentemb.errors import SearchError
from sentemb.maths.neighbours import top_of_blocks
from sentemb.search.store import manifest as manifests
from sentemb.search.store.change import Access, Outcome, changing
from sentemb.search.store.generation import Generation
from sentemb.search.store.manifest import Tuned, damaged
from sentemb.search.store.segment import verify_file
from sentemb.search.store.tuning import K, Search, tune
from sentemb.search.store.writing import BLOCK
from sentemb.search.vectors.kind import Vectors


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


def verify(access: Access, known: Generation, search: Search) -> tuple[Generation, int]:
    """Check everything that can be checked; gives the newest generation and the number of its files.

    The checksums, SQLite's own integrity, that live ids are unique, and that exact vectors find themselves.

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
        for row, document in segment.documents.scan():
            if segment.live is None or segment.live[row]:
                seen[str(document.id)] += 1
    twice = [name for name, count in seen.items() if count > 1]
    if (twice and made.has_next_id) or sum(seen.values()) != made.live:  # format 1 took 3 and "3" for two ids
        count = sum(seen.values())
        raise damaged(access.folder, f"{len(twice)} ids occur twice, {count} live documents of {made.live}")
    _check_vectors(generation, search)
    return generation, len(made.files)


def _check_vectors(generation: Generation, search: Search) -> None:
    metric = generation.manifest.metric
    for segment in generation.segments:
        if not (segment.vectors.is_exact and segment.live_rows):
            continue
        rows = np.arange(segment.rows) if segment.live is None else np.flatnonzero(segment.live)
        sample = np.random.default_rng(0).choice(rows, size=min(16, len(rows)), replace=False)
        vectors = segment.vectors.reconstruct(sample)
        best = search([segment], vectors, 1, metric, effort=None, oversample=1).scores[:, 0]
        own = (vectors**2).sum(axis=1) if metric != "l2" else np.zeros(len(sample))
        if (best > own + 1e-4 if metric == "l2" else best < own - 1e-4).any():
            raise damaged(generation.folder / segment.entry.index.name, "a vector does not find itself")


def tune_on(access: Access, known: Generation, queries: Vectors, target_recall: float, search: Search) -> Outcome:
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
        tuned = tune(
            segments, vectors, truth, None, metric=metric, target=target_recall, search=search, measured_on="queries"
        )
        return Outcome(generation=change.finish(replace(change.manifest, tuned=tuned)))
