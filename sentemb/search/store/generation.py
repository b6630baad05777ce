"""One generation of an index: its segments as one row of positions, the documents at them, and facts about it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.search.store import manifest as manifests
from sentemb.search.store.documents import Condition, Document, Id, is_id
from sentemb.search.store.embedding import VectorRule
from sentemb.search.store.manifest import Manifest, Passages, Tuned, damaged
from sentemb.search.store.passages import document_of, put_together
from sentemb.search.store.segment import BLOCK, Block, Segment, verify_file
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Hits

ATTEMPTS = 20  # a reader meets a writer's clean-up at most this often in a row


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One result. ``score`` is a cosine or inner product (larger is better), or for l2 a squared distance."""

    id: Id
    score: float
    text: str | None  # of an index of passages: the passage, whose place ``metadata["passage"]`` tells
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one manifest names, opened; it never changes, so whatever holds it sees one state of the index.

    A document's position counts the rows of all segments in order, deleted ones included.
    """

    folder: Path
    manifest: Manifest
    segments: tuple[Segment, ...]
    is_mapped: bool = False  # vectors are left in their files

    @classmethod
    def of(
        cls, folder: Path, manifest: Manifest, *, known: Generation | None = None, is_mapped: bool = False,
        verify: bool = False,
    ) -> Generation:
        """Open what a manifest names.

        Args:
            known: its segments are not opened again.
            verify: check the SHA-256 of every file before it is parsed.
        """
        opened = {(old.entry.index, old.entry.documents): old for old in known.segments} if known else {}
        if manifest.template is not None and verify:
            verify_file(folder, manifest.template)
        segments: list[Segment] = []
        for entry in manifest.segments:
            old = opened.get((entry.index, entry.documents))
            if old is None:
                segments.append(Segment(folder, entry, manifest, is_mapped=is_mapped, verify=verify))
                continue
            if entry.deleted is not None and verify:
                verify_file(folder, entry.deleted)
            segments.append(old.with_entry(entry, folder))
        return cls(folder=folder, manifest=manifest, segments=tuple(segments), is_mapped=is_mapped)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Generation.of, is_mapped=self.is_mapped), (self.folder.resolve(), self.manifest)

    @cached_property
    def starts(self) -> list[int]:
        """Position of every segment's first row."""
        return [0, *np.cumsum([segment.rows for segment in self.segments]).tolist()][: len(self.segments)]

    @property
    def rule(self) -> VectorRule:
        """How raw vectors become those of the index."""
        made = self.manifest
        width = made.width or (made.model.width if made.model else made.dimension)
        return VectorRule(metric=made.metric, dimension=made.dimension, width=width)

    @property
    def dimension(self) -> int:
        """Values of a vector."""
        return self.manifest.dimension

    @property
    def next_id(self) -> int:
        """The first number for documents without an id, above every integer id there is."""
        made = self.manifest
        largest = [] if made.has_next_id else [segment.documents.largest_integer() for segment in self.segments]
        return max([made.next_id, *(number + 1 for number in largest)])

    def close(self) -> None:
        """Close the files."""
        for segment in self.segments:
            segment.documents.close()

    def __len__(self) -> int:
        return self.manifest.live

    def __contains__(self, name: object) -> bool:
        return isinstance(name, (int, str)) and bool(self.positions_of([name]))

    def documents_of(self, positions: Iterable[int]) -> dict[int, Document]:
        """Documents by position."""
        documents: dict[int, Document] = {}
        wanted = np.unique(np.fromiter(positions, dtype=np.int64))
        for segment, first in zip(self.segments, self.starts, strict=True):
            inside = wanted[(wanted >= first) & (wanted < first + segment.rows)] - first
            documents.update((row + first, found) for row, found in segment.documents.fetch(inside.tolist()).items())
        return documents

    def positions_of(self, ids: Sequence[Id]) -> dict[Id, int]:
        """Positions of the live documents among the ids; of a document of several passages, the first one's."""
        return {name: places[0] for name, places in self._places_of(ids).items()}

    def names(self) -> list[Id]:
        """Ids of all live documents."""
        names: dict[Id, None] = {}
        for segment in self.segments:
            for start in range(0, segment.rows, BLOCK):
                names |= dict.fromkeys(segment.live_names(start, start + BLOCK))
        return list(names)

    def get(self, ids: Sequence[Id]) -> dict[Id, Document]:
        """Live documents by id, whole; absent ones are left out."""
        positions = self._places_of(ids)
        rows = self.documents_of(chain.from_iterable(positions.values()))
        documents = {name: [rows[position] for position in places] for name, places in positions.items()}
        return {name: put_together(one) if self.manifest.passages else one[0] for name, one in documents.items()}

    def documents_where(self, condition: Condition | None) -> Iterator[Document]:
        """Live documents that satisfy a condition, whole."""
        for segment in self.segments:
            allowed = segment.allowed(condition)
            rows = np.arange(segment.rows) if allowed is None else np.flatnonzero(allowed)
            parts = (rows[start : start + BLOCK].tolist() for start in range(0, len(rows), BLOCK))
            rows_of_parts = (document for part in parts for document in segment.documents.fetch(part).values())
            if self.manifest.passages is None:
                yield from rows_of_parts
            else:
                names = dict.fromkeys(document_of(row).id for row in rows_of_parts)
                yield from self.get([name for name in names if name is not None]).values()

    def _places_of(self, ids: Sequence[Id]) -> dict[Id, list[int]]:
        check_ids(ids)
        places: dict[Id, list[int]] = {}
        for segment, first in zip(self.segments, self.starts, strict=True):
            for name, row in segment.rows_of(ids):
                places.setdefault(name, []).append(first + row)
        return places

    def vectors_at(self, positions: NDArray[np.int64]) -> Vectors:
        """Vectors of documents at the best precision that is kept, (positions, dimension)."""
        out = np.empty((len(positions), self.dimension), dtype=np.float32)
        for segment, first in zip(self.segments, self.starts, strict=True):
            inside = (positions >= first) & (positions < first + segment.rows)
            if inside.any():
                out[inside] = segment.exact_vectors(positions[inside] - first)
        return out

    def blocks(self, start: int, stop: int, *, with_vectors: bool = True) -> Iterator[Block]:
        """The rows at positions start … stop - 1, on their way into another segment."""
        for segment, first in zip(self.segments, self.starts, strict=True):
            rows = np.arange(max(start - first, 0), min(stop - first, segment.rows))
            yield from segment.blocks(rows, with_vectors=with_vectors)

    def hits(self, found: Hits) -> list[list[Hit]]:
        """Results with their documents; of an index of passages, a document for every passage."""
        documents = self.documents_of(found.ids[found.ids >= 0].ravel().tolist())
        if self.manifest.passages:
            documents = {position: document_of(row) for position, row in documents.items()}

        def hit(document: Document, score: float) -> Hit:
            assert document.id is not None  # every one that is kept has an id
            return Hit(id=document.id, score=score, text=document.text, metadata=document.metadata)

        return [
            [hit(documents[place], score) for place, score in zip(row, scores, strict=True) if place >= 0]
            for row, scores in zip(found.ids.tolist(), found.scores.tolist(), strict=True)
        ]


def check_ids(ids: Sequence[Id]) -> None:
    """Raises SearchError for what is no list of ids, above all for one text, whose letters would count as ids."""
    if isinstance(ids, (str, bytes)):
        raise SearchError(f"ids are a list; found {ids!r}; write [{ids!r}]")
    for name in ids:
        if not is_id(name):
            raise SearchError(f"id {name!r}: an id is a text or a whole number of 64 bits")


def open_generation(
    folder: Path, *, known: Generation | None = None, is_mapped: bool = False, verify: bool = True
) -> Generation:
    """The newest generation; starts over where a writer replaced it meanwhile. See ``Generation.of``.

    Raises:
        SearchError: no index, a damaged or altered file, or a newer format.
    """
    for attempt in range(ATTEMPTS):
        manifest = manifests.read(folder)
        try:
            return Generation.of(folder, manifest, known=known, is_mapped=is_mapped, verify=verify)
        except (FileNotFoundError, SearchError) as error:
            if manifests.read(folder).generation == manifest.generation:
                if isinstance(error, SearchError):
                    raise
                raise SearchError(f"{error.filename}: is missing; restore the index from a copy") from None
            time.sleep(0.01 * attempt)
    raise SearchError(f"{folder}: changes faster than it can be opened; try again")


def verified(known: Generation) -> tuple[Generation, int]:
    """Check everything that can be checked; gives the newest generation and the number of its files.

    The checksums, and that live ids are unique.

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
        names = segment.documents.ids(0, segment.rows)
        seen.update(str(names[row]) for row in segment.live_rows.tolist())
    count, twice = seen.total(), sum(times > 1 for times in seen.values())
    if (twice and made.has_next_id) or count != made.live:  # format 1 took 3 and "3" for two ids
        raise damaged(known.folder, f"{twice} ids occur twice, {count} live documents of {made.live}")
    return generation, len(made.files)


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What an index holds and takes."""

    documents: int
    deleted: int
    cut: int  # documents longer than the model reads: no search sees their end
    passages: Passages | None  # then documents, deleted and cut count passages
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


def stats_of(generation: Generation) -> Stats:
    """Figures from the manifest."""
    made = generation.manifest
    vectors = sum(segment.index.bytes for segment in made.segments)
    return Stats(
        documents=made.live, deleted=made.rows - made.live, cut=sum(segment.cut for segment in made.segments),
        passages=made.passages, segments=len(made.segments), generation=made.generation, kind=str(made.kind["use"]),
        description=made.description, reason=made.reason, metric=made.metric, dimension=made.dimension,
        words=made.words, model=made.model.source if made.model else None,
        digest=made.model.digest if made.model else None, bytes=sum(file.bytes for file in made.files),
        bytes_per_vector=vectors / max(made.rows, 1), tuned=made.tuned,
    )
