"""Looking after an index: statistics, verification, tuning on real queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError, did_you_mean
from sentemb.search.query.conditions import OWN
from sentemb.search.query.expression import fields_of
from sentemb.search.store import manifest as manifests
from sentemb.search.store.changes import changing
from sentemb.search.store.manifest import Tuned, damaged
from sentemb.search.store.segment import verify_file
from sentemb.search.store.spool import BLOCK
from sentemb.search.vectors.tune import K, exact_top, tune

if TYPE_CHECKING:
    from sentemb.search.index import SearchIndex

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Stats:
    """What an index holds and takes."""

    documents: int
    deleted: int
    segments: int
    generation: int
    kind: str
    factory: str
    reason: str
    metric: str
    dimension: int
    model: str | None
    digest: str | None
    bytes: int
    bytes_per_vector: float  # of the vector files alone
    tuned: Tuned | None


def stats(index: SearchIndex) -> Stats:
    """Figures from the manifest."""
    made = index.manifest
    vectors = sum(segment.index.bytes for segment in made.segments)
    return Stats(
        documents=made.live, deleted=made.rows - made.live, segments=len(made.segments), generation=made.generation,
        kind=made.kind, factory=made.factory, reason=made.reason, metric=made.metric, dimension=made.dimension,
        model=made.model.source if made.model else None, digest=made.model.digest if made.model else None,
        bytes=sum(file.bytes for file in made.files), bytes_per_vector=vectors / max(made.rows, 1), tuned=made.tuned,
    )


def absent_fields(index: SearchIndex, where: str | Mapping[str, Any] | None) -> str | None:
    """What a filter names that no document has, beside what there is; None where all names are known.

    A look through every document, so for filters that found nothing.
    """
    absent = [
        name for name in fields_of(where) if not any(segment.documents.has_field(name) for segment in index.segments)
    ]
    if not absent:
        return None
    known = {name for segment in index.segments for name in segment.documents.fields()}
    return f'no document has the field "{absent[0]}"{did_you_mean(absent[0], {*known, *OWN})}'


def verify(index: SearchIndex) -> int:
    """Check everything that can be checked; gives the number of files.

    The checksums, SQLite's own integrity, that live ids are unique, and that exact vectors find themselves.

    Raises:
        SearchError: names the first fault.
    """
    made = manifests.read(index.folder)
    for file in made.files:
        try:
            verify_file(index.folder, file)
        except FileNotFoundError:
            raise damaged(index.folder / file.name, "is missing") from None
    index.refresh()
    seen: Counter[int | str] = Counter()
    for segment in index.segments:
        segment.documents.check()
        for row, document in segment.documents.scan():
            if document.id is not None and (segment.live is None or segment.live[row]):
                seen[document.id] += 1
    twice = [name for name, count in seen.items() if count > 1]
    if twice or sum(seen.values()) != made.live:
        raise damaged(index.folder, f"{len(twice)} ids occur twice, {sum(seen.values())} live documents of {made.live}")
    _check_vectors(index)
    return len(made.files)


def _check_vectors(index: SearchIndex) -> None:
    first = 0
    for segment in index.segments:
        if segment.vectors.is_exact and segment.live_rows:
            rows = np.arange(segment.rows) if segment.live is None else np.flatnonzero(segment.live)
            some = np.random.default_rng(0).choice(rows, size=min(16, len(rows)), replace=False)
            vectors = segment.vectors.vectors_of(some)
            best = index.search_vectors(vectors, 1)
            own = (vectors**2).sum(axis=1) if index.manifest.metric != "l2" else np.zeros(len(some))
            worse = best.scores[:, 0] > own + 1e-4 if index.manifest.metric == "l2" else best.scores[:, 0] < own - 1e-4
            if worse.any():
                raise damaged(index.folder / segment.entry.index.name, "a vector does not find itself")
        first += segment.rows


class _LiveSource:
    """The live rows of a segment as the best vectors that are kept."""

    def __init__(self, index: SearchIndex, place: int) -> None:
        self._segment = index.segments[place]
        self.rows, self.dimension = self._segment.rows, index.manifest.dimension

    def block(self, start: int, stop: int) -> Vectors:
        """Rows start … stop - 1."""
        return self._segment.exact_vectors(np.arange(start, min(stop, self.rows)))

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """The given rows."""
        return self._segment.exact_vectors(rows)


def tune_on(index: SearchIndex, queries: Vectors, target_recall: float) -> Tuned:
    """Tune the search effort to real queries and store it; deleted rows count as the index counts them: not at all.

    The truth is exact search over the vectors that the index keeps (half precision where it re-scores), so a
    quantised kind without re-scoring is measured against its own codes.

    Raises:
        SearchError: no queries, an empty index, or a target outside (0, 1].
    """
    if not 0 < target_recall <= 1:
        raise SearchError(f"target_recall = {target_recall}; allowed: above 0, up to 1")
    vectors = index.rule.apply(queries, "queries")
    if len(vectors) == 0 or len(index) == 0:
        raise SearchError(f"{index.folder}: tuning needs queries and documents")
    with changing(index) as change:
        sources = [_LiveSource(index, place) for place in range(len(index.segments))]
        live = np.concatenate([
            np.ones(segment.rows, dtype=bool) if segment.live is None else segment.live for segment in index.segments
        ])
        spare = int((~live).sum())
        truth = exact_top(sources, vectors, min(K + spare, BLOCK), index.manifest.metric).ids
        dead = (truth >= 0) & ~live[truth]
        order = np.argsort(dead | (truth < 0), axis=1, kind="stable")[:, :K]
        truth = np.where(np.take_along_axis(dead, order, axis=1), -1, np.take_along_axis(truth, order, axis=1))
        found = tune(index.segments, vectors, truth, None, metric=index.manifest.metric, target=target_recall)
        change.finish(replace(change.recipe.manifest, tuned=found))
    return found
