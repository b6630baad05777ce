"""One segment (vectors, documents, deletions, half-precision vectors): how it is read, and the one way to write it."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.files import sha256_of
from sentemb.parts import PartError, room
from sentemb.search.store import disk
from sentemb.search.store.documents import Condition, Documents, Id, Row, write_documents
from sentemb.search.store.manifest import Manifest, SegmentEntry, StoredFile, damaged
from sentemb.search.store.words import WordRule
from sentemb.search.vectors.choice import kind_of
from sentemb.search.vectors.kind import Mask, Rows, VectorIndex, Vectors

BLOCK = 8192  # rows in memory at a time
TAIL_ROWS = BLOCK  # an addition up to this size stays exact until it is merged
MAX_SEGMENTS = 8
KEPT_FILTERS = 16
CAN_ADVISE = hasattr(mmap, "MADV_RANDOM")  # not on Windows


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows on their way into a segment."""

    rows: Sequence[Row]
    vectors: Vectors | None  # None: nothing needs them, because the index has the rows already
    is_indexed: bool = False  # the index has taken the rows' codes
    cut: int = 0  # documents whose end the model did not read
    width: int = 0  # of the encoder's own vectors


def verify_file(folder: Path, file: StoredFile) -> None:
    """Size and checksum of a file, before anything parses it.

    Raises:
        SearchError: it was altered.
        FileNotFoundError: it is missing.
    """
    path = folder / file.name
    size = path.stat().st_size
    if size != file.bytes:
        raise damaged(path, f"{size} bytes, the manifest says {file.bytes}")
    if sha256_of(path) != file.sha256:
        raise damaged(path, "its SHA-256 is not the manifest's, so it was altered")


def stored_kind(manifest: Manifest, *, is_tail: bool = False) -> VectorIndex:
    """A new, empty index of the kind that a manifest names; tails are exact.

    Raises:
        SearchError: no such kind; code of others is not imported because an index names it.
    """
    if is_tail:
        return kind_of("flat")
    settings = dict(manifest.kind)
    try:
        kind = room("kinds").find(settings.pop("use", None), may_import=False)(**settings)
    except PartError as error:
        raise SearchError(
            f"kind of the index: {error}; import the module of a kind of your own before you open the index, or "
            "install it as an entry point"
        ) from None
    assert isinstance(kind, VectorIndex)
    return kind


def empty_index(folder: Path, manifest: Manifest, rows: int, *, is_tail: bool = False) -> VectorIndex:
    """An empty index that takes vectors: of the manifest's kind (trained where that needs it), or a tail.

    Raises:
        SearchError: the trained template was altered.
    """
    index = stored_kind(manifest, is_tail=is_tail)
    if manifest.template is None or is_tail:
        index.create(dimension=manifest.dimension, metric=manifest.metric, rows=rows)
    else:
        verify_file(folder, manifest.template)
        index.load(folder / manifest.template.name, dimension=manifest.dimension, metric=manifest.metric)
    return index


class Segment:
    """Rows that were written together; immutable but for what the manifest says of deletions.

    Args:
        is_mapped: leave vectors in their file.
        verify: check sizes and checksums first.

    Attributes:
        live: rows that are not deleted; None: all.
    """

    def __init__(
        self, folder: Path, entry: SegmentEntry, manifest: Manifest, *, is_mapped: bool, verify: bool = False
    ) -> None:
        self.entry, self.rows = entry, entry.rows
        for file in entry.files if verify else ():
            verify_file(folder, file)
        path = folder / entry.index.name
        self.vectors = stored_kind(manifest, is_tail=entry.is_tail)
        self.vectors.load(path, dimension=manifest.dimension, metric=manifest.metric, is_mapped=is_mapped)
        shape = self.vectors.rows, self.vectors.dimension
        if shape != (entry.rows, manifest.dimension):
            raise damaged(path, f"vectors of shape {shape}, the manifest says {(entry.rows, manifest.dimension)}")
        self.documents = Documents(
            folder / entry.documents.name, entry.rows, is_split=manifest.passages is not None
        )
        self.half = None if entry.half is None else HalfVectors(folder / entry.half.name, *shape)
        self.live = _open_live(folder, entry)
        self._filters: dict[Condition, Mask] = {}

    @property
    def live_rows(self) -> NDArray[np.int64]:
        """The rows that are not deleted."""
        return np.arange(self.rows) if self.live is None else np.flatnonzero(self.live)

    def with_entry(self, entry: SegmentEntry, folder: Path) -> Segment:
        """The same files under another set of deletions (nothing is opened again)."""
        other = copy(self)
        other.entry, other.live = entry, _open_live(folder, entry)
        return other

    def without(self, rows: Sequence[int]) -> Segment:
        """The same files with further rows deleted, which no manifest names yet."""
        other = copy(self)
        other.live = np.ones(self.rows, dtype=bool) if self.live is None else self.live.copy()
        other.live[rows] = False
        return other

    def allowed(self, condition: Condition | None) -> Mask | None:
        """Rows that a search may find: live ones that satisfy the condition; None where that is every row."""
        if condition is None:
            return self.live
        mask = self._filters.get(condition)
        if mask is None:
            mask = np.zeros(self.rows, dtype=bool)
            mask[self.documents.rows_where(condition)] = True
            if len(self._filters) >= KEPT_FILTERS:
                self._filters.clear()
            self._filters[condition] = mask
        return mask if self.live is None else mask & self.live

    def rows_of(self, ids: Iterable[Id]) -> list[tuple[Id, int]]:
        """The live rows of documents with any of the ids, each with the id as it was asked for."""
        return [(name, row) for name, row in self.documents.rows_of(ids) if self.live is None or self.live[row]]

    def live_names(self, start: int, stop: int) -> list[Id]:
        """Ids of the live documents of rows start … stop - 1."""
        rows = self.documents.names_of_rows(start, stop)
        return [name for row, name in rows if self.live is None or self.live[row]]

    def exact_vectors(self, rows: Rows) -> Vectors:
        """Vectors at the best precision that is kept."""
        if self.half is not None:
            return self.half.at(rows)
        return self.vectors.reconstruct(rows)

    def blocks(self, rows: Rows, *, with_vectors: bool = True, is_indexed: bool = False) -> Iterator[Block]:
        """Chosen rows on their way into another segment."""
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            vectors = self.exact_vectors(part) if with_vectors else None
            # which documents were cut is not known: any run of rows gets its share of them
            cut = self.entry.cut * (int(part[-1]) + 1) // self.rows - self.entry.cut * int(part[0]) // self.rows
            yield Block(rows=self.documents.raw(part.tolist()), vectors=vectors, is_indexed=is_indexed, cut=cut)


class HalfVectors:
    """Half-precision vectors that stay in their file, which is mapped.

    The best candidates of a query lie anywhere in it. The system reads ahead, as for a file that is read in order: here
    a hundred times what is wanted. So it is told not to, and told beforehand where rows do stand together.
    """

    def __init__(self, path: Path, rows: int, dimension: int) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._vectors = np.frombuffer(self._map, np.float16).reshape(rows, dimension)
        if CAN_ADVISE:
            self._map.madvise(mmap.MADV_RANDOM)

    def at(self, rows: Rows) -> Vectors:
        """Vectors of rows, in float32."""
        if CAN_ADVISE and len(rows):
            first, stop = int(rows.min()), int(rows.max()) + 1
            if stop - first <= 2 * len(rows):
                row_bytes = self._vectors.strides[0]
                begin = first * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
                self._map.madvise(mmap.MADV_WILLNEED, begin, stop * row_bytes - begin)
        return self._vectors[rows].astype(np.float32)


def _open_live(folder: Path, entry: SegmentEntry) -> Mask | None:
    if entry.deleted is None:
        return None
    path = folder / entry.deleted.name
    deleted = np.unpackbits(np.fromfile(path, dtype=np.uint8), bitorder="little").astype(bool)
    if len(deleted) < entry.rows or int(deleted.sum()) != entry.deleted_rows:
        raise damaged(path, "its deletions are not those of the manifest")
    return ~deleted[: entry.rows]


@dataclass(frozen=True, kw_only=True)
class SegmentWriter:
    """Writes segments into a folder: a build, an addition and a rewriting all end here. It holds no open file, so it
    can be sent to other processes; what it has written counts when its entry is committed."""

    folder: Path
    generation: int
    indexed_fields: tuple[str, ...] = ()
    words: WordRule | None = None

    def write(
        self, blocks: Iterable[Block], index: VectorIndex, *, is_tail: bool = False, is_rescored: bool = False
    ) -> SegmentEntry:
        """Write one segment.

        Args:
            index: takes the vectors.
            is_tail: the index is an exact one, whatever the manifest's kind.
            is_rescored: also keep half-precision vectors.
        """
        cut = 0
        with ExitStack() as stack:
            half = stack.enter_context(disk.create(self.path("half"))) if is_rescored else None

            def rows() -> Iterator[Sequence[Row]]:
                nonlocal cut
                for block in blocks:
                    yield block.rows
                    cut += block.cut
                    if block.vectors is not None and not block.is_indexed:
                        index.add(block.vectors)
                    if block.vectors is not None and half is not None:
                        half.write(_in_half_precision(block.vectors).tobytes())

            documents, count = write_documents(self.path("documents"), rows(), self.indexed_fields, self.words)
            return SegmentEntry(
                rows=count, is_tail=is_tail, index=self.write_index(index, "index"), documents=documents,
                half=half.finish() if half else None, cut=min(cut, count),
            )

    def rewrite_documents(self, segment: Segment) -> SegmentEntry:
        """Write a segment's documents anew, with the words and indexes of now; gives its entry with that file."""
        rows = (block.rows for block in segment.blocks(np.arange(segment.rows), with_vectors=False))
        stored, _ = write_documents(self.path("documents"), rows, self.indexed_fields, self.words)
        return replace(segment.entry, documents=stored)

    def write_index(self, index: VectorIndex, suffix: str) -> StoredFile:
        """Write an index alone."""
        with disk.create(self.path(suffix)) as file:
            index.save(file.write)
            return file.finish()

    def write_deletions(self, entry: SegmentEntry, live: Mask) -> SegmentEntry:
        """The entry with other deletions."""
        with disk.create(self.path("deleted")) as file:
            file.write(np.packbits(~live, bitorder="little").tobytes())
            return replace(entry, deleted=file.finish(), deleted_rows=int((~live).sum()))

    def path(self, suffix: str) -> Path:
        """A new file of a name that no other has."""
        return self.folder / f"g{self.generation:08d}-{token_hex(4)}.{suffix}"


def _in_half_precision(vectors: Vectors) -> NDArray[np.float16]:
    if np.abs(vectors).max(initial=0) > np.finfo(np.float16).max:
        raise SearchError("re-scoring keeps half precision, and a value is beyond 65504; build without rescore")
    return vectors.astype(np.float16)


def to_merge(rows: Sequence[int]) -> list[int]:
    """Numbers of the segments to merge so that few remain; none while there are at most ``MAX_SEGMENTS``.

    The smallest are taken, and then each next one that is not more than twice as large as all taken so far: a row
    is rewritten about log₂(rows) times in its life (a log-structured merge).
    """
    if len(rows) <= MAX_SEGMENTS:
        return []
    order = np.argsort(rows, kind="stable").tolist()
    chosen = order[:2]
    for number in order[2:]:
        total = sum(rows[taken] for taken in chosen)
        are_few = len(rows) - len(chosen) + 1 <= MAX_SEGMENTS // 2
        if rows[number] > 2 * total and (are_few or rows[number] > TAIL_ROWS):
            break
        chosen.append(number)
    return sorted(chosen)
