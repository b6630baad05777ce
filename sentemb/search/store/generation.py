"""One generation of an index: its segments as one row of positions, and the documents at them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.search.store import manifest as manifests
from sentemb.search.store.disk import Disk
from sentemb.search.store.documents import Id
from sentemb.search.store.embedding import VectorRule
from sentemb.search.store.manifest import Document, Manifest, SegmentEntry
from sentemb.search.store.segment import Segment, verify_file
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Hits

ATTEMPTS = 20  # a reader meets a writer's clean-up at most this often in a row


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One result. ``score`` is a cosine or inner product (larger is better), or for l2 a squared distance."""

    id: Id
    score: float
    text: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one manifest names, opened; it never changes, so whatever holds it sees one state of the index.

    A document's position counts the rows of all segments in order, deleted ones included.
    """

    folder: Path
    manifest: Manifest
    segments: tuple[Segment, ...]

    @cached_property
    def starts(self) -> list[int]:
        """Position of every segment's first row."""
        return [0, *np.cumsum([segment.rows for segment in self.segments]).tolist()][: len(self.segments)]

    @property
    def rule(self) -> VectorRule:
        """How raw vectors become those of the index."""
        made = self.manifest
        width = made.model.width if made.model else made.width or made.dimension
        return VectorRule(metric=made.metric, dimension=made.dimension, width=width)

    def close(self) -> None:
        """Close the files."""
        for segment in self.segments:
            segment.close()

    def __len__(self) -> int:
        return self.manifest.live

    def __contains__(self, name: object) -> bool:
        return isinstance(name, (int, str)) and bool(self.positions_of([name]))

    def documents_of(self, positions: Iterable[int]) -> dict[int, Document]:
        """Documents by position."""
        found: dict[int, Document] = {}
        wanted = np.unique(np.fromiter(positions, dtype=np.int64))
        for segment, first in zip(self.segments, self.starts, strict=True):
            inside = wanted[(wanted >= first) & (wanted < first + segment.rows)] - first
            for row, document in segment.documents.fetch(inside.tolist()).items():
                found[row + first] = document
        return found

    def positions_of(self, ids: Sequence[Id]) -> dict[Id, int]:
        """Positions of the live documents among the ids."""
        check_ids(ids)
        found: dict[Id, int] = {}
        for segment, first in zip(self.segments, self.starts, strict=True):
            for name, rows in segment.documents.rows_of(ids).items():
                found.update((name, row + first) for row in rows if segment.live is None or segment.live[row])
        return found

    def get(self, ids: Sequence[Id]) -> dict[Id, Document]:
        """Live documents by id; absent ones are left out."""
        positions = self.positions_of(ids)
        documents = self.documents_of(positions.values())
        return {name: documents[place] for name, place in positions.items()}

    def vectors_at(self, positions: NDArray[np.int64]) -> Vectors:
        """Vectors of documents at the best precision that is kept, (positions, dimension)."""
        out = np.empty((len(positions), self.manifest.dimension), dtype=np.float32)
        for segment, first in zip(self.segments, self.starts, strict=True):
            inside = (positions >= first) & (positions < first + segment.rows)
            if inside.any():
                out[inside] = segment.exact_vectors(positions[inside] - first)
        return out

    def hits(self, found: Hits) -> list[list[Hit]]:
        """Results with their documents."""
        documents = self.documents_of(found.ids[found.ids >= 0].ravel().tolist())
        return [
            [
                Hit(id=_given(document.id), score=score, text=document.text, metadata=document.metadata)
                for place, score in zip(row, scores, strict=True) if place >= 0 for document in [documents[place]]
            ]
            for row, scores in zip(found.ids.tolist(), found.scores.tolist(), strict=True)
        ]


def check_ids(ids: Sequence[Id]) -> None:
    """Refuse what is no list of ids, above all one text, whose letters would count as ids.

    Raises:
        SearchError: says what was found.
    """
    if isinstance(ids, (str, bytes)):
        raise SearchError(f"ids are a list; found {ids!r}; write [{ids!r}]")
    for name in ids:
        is_number = isinstance(name, int) and not isinstance(name, bool) and -(2**63) <= name < 2**63
        if not (isinstance(name, str) or is_number):
            raise SearchError(f"id {name!r}: an id is a text or a whole number of 64 bits")


def _given(name: Id | None) -> Id:
    assert name is not None  # the store gives every document an id
    return name


@dataclass(frozen=True, kw_only=True)
class Access:
    """How an index is opened and written.

    Attributes:
        wait_s: seconds to wait for another writer.
        is_mapped, device: see ``Segment``.
    """

    folder: Path
    disk: Disk
    is_mapped: bool = False
    device: str | None = None
    wait_s: float = 0.0

    def open(self, known: Generation | None = None, *, verify: bool = True) -> Generation:
        """The newest generation; starts over where a writer replaced it meanwhile.

        Args:
            known: its segments are not opened again.

        Raises:
            SearchError: no index, a damaged or altered file, or a newer format.
        """
        opened = {segment.entry.index.name: segment for segment in known.segments} if known else {}
        for attempt in range(ATTEMPTS):
            manifest = manifests.read(self.folder)
            try:
                if manifest.template is not None and verify:
                    verify_file(self.folder, manifest.template)
                segments = tuple(
                    _opened(self.folder, entry, opened, verify=verify) or self.segment(entry, manifest, verify=verify)
                    for entry in manifest.segments
                )
                return Generation(folder=self.folder, manifest=manifest, segments=segments)
            except (FileNotFoundError, SearchError) as error:
                if manifests.read(self.folder).generation == manifest.generation:
                    if isinstance(error, SearchError):
                        raise
                    raise SearchError(f"{error.filename}: is missing; restore the index from a copy") from None
                time.sleep(0.01 * attempt)
        raise SearchError(f"{self.folder}: changes faster than it can be opened; try again")

    def segment(self, entry: SegmentEntry, manifest: Manifest, *, verify: bool = False) -> Segment:
        """One segment, opened."""
        return Segment(
            self.folder, entry, manifest, is_mapped=self.is_mapped, verify=verify, device=self.device
        )


def _opened(folder: Path, entry: SegmentEntry, known: Mapping[str, Segment], *, verify: bool) -> Segment | None:
    """The entry's segment where its files are open already, with the entry's deletions."""
    old = known.get(entry.index.name)
    if old is None or old.entry.index != entry.index or old.entry.documents != entry.documents:
        return None
    if entry.deleted is not None and verify:
        verify_file(folder, entry.deleted)
    return old.with_entry(entry, folder)
