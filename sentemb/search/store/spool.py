"""Where a build or an addition collects vectors and documents before an index is made of them.

Vectors go to the disk block by block, so that memory stays bounded, training can sample from all of them, and a
build that was interrupted continues where its last block ended.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.search.store.disk import Disk
from sentemb.search.store.documents import DocumentWriter, Id
from sentemb.search.store.embedding import VectorRule
from sentemb.search.store.known_ids import KnownIds
from sentemb.search.store.manifest import Document

Vectors = NDArray[np.float32]
BLOCK = 8192  # vectors in memory at a time
MAX_KNOWN = 400_000  # distinct texts remembered, about 40 MB


class VectorSource(Protocol):
    """Vectors that can be read again, block by block."""

    rows: int
    dimension: int

    def block(self, start: int, stop: int) -> Vectors: ...

    def take(self, rows: NDArray[np.int64]) -> Vectors: ...


class ArraySource:
    """Vectors of an array (or memory map), truncated and normalised block by block."""

    def __init__(self, vectors: Vectors, rule: VectorRule) -> None:
        self._vectors, self._rule = vectors, rule
        self.rows = len(vectors)
        self.dimension = vectors.shape[1] if rule.dimension is None else rule.dimension

    def block(self, start: int, stop: int) -> Vectors:
        """Rows start … stop - 1."""
        return self._rule.apply(self._vectors[start:stop], "vectors")

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """The given rows."""
        return self._rule.apply(self._vectors[rows], "vectors")


class FileSource:
    """Float32 rows of a file, read with plain reads (a memory map would count as memory in use)."""

    def __init__(self, path: Path, dimension: int, rows: int) -> None:
        self.path = path
        self.rows, self.dimension = rows, dimension

    def block(self, start: int, stop: int) -> Vectors:
        """Rows start … stop - 1."""
        count = max(min(stop, self.rows) - start, 0)
        found = np.fromfile(self.path, np.float32, count * self.dimension, offset=start * self.dimension * 4)
        return found.reshape(count, self.dimension)

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """The given rows."""
        mapped = np.memmap(self.path, np.float32, mode="r", shape=(self.rows, self.dimension))
        return np.array(mapped[rows])


@dataclass
class Part:
    """Rows that become one segment."""

    vectors: Path
    documents: DocumentWriter
    rows: int = 0


def pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """Documents and vectors of the parts of a spool, from the first up to where a file is missing."""
    found: list[tuple[Path, Path]] = []
    while True:
        documents, vectors = names_of(folder, len(found))
        if not (documents.exists() and vectors.exists()):
            return found
        found.append((documents, vectors))


def names_of(folder: Path, number: int) -> tuple[Path, Path]:
    """Where the documents and vectors of a part lie."""
    return folder / f"documents-{number:04d}.sqlite", folder / f"vectors-{number:04d}.f32"


class Spool:
    """Parts on the disk, filled in order.

    Args:
        folder: where the files go; made here.
        part_rows: rows after which a new part begins.
        is_durable: flush every block, so that ``open_again`` finds everything that ``append`` took.
    """

    def __init__(self, folder: Path, disk: Disk, *, part_rows: int | None, is_durable: bool) -> None:
        self.folder, self._disk = folder, disk
        self._part_rows = part_rows
        self._is_durable = is_durable
        self._known = KnownIds()
        self.parts: list[Part] = []
        self.dimension: int | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return sum(part.rows for part in self.parts)

    def open_again(self, dimension: int) -> None:
        """Take up what an interrupted build left: whole blocks are kept, a torn one is cut off."""
        self.dimension = dimension
        whole = pairs_in(self.folder)
        for path in self.folder.glob("*-????.*"):  # vectors without their documents are of no use, nor what follows
            if int(path.name.split("-")[1][:4]) >= len(whole):
                self._disk.remove(path)
        for path, vectors in whole:
            documents = DocumentWriter(path, self._disk, is_durable=self._is_durable)
            rows = min(documents.rows, vectors.stat().st_size // (4 * dimension))
            documents.truncate(rows)
            os.truncate(vectors, rows * 4 * dimension)
            self.parts.append(Part(vectors, documents, rows))
            for start in range(0, rows, BLOCK):
                self._known.add(documents.ids(start, start + BLOCK))

    def append(self, documents: Sequence[Document], ids: Sequence[Id], vectors: Vectors) -> None:
        """Add one block of rows."""
        self.dimension = vectors.shape[1] if self.dimension is None else self.dimension
        if vectors.shape[1] != self.dimension:
            raise SearchError(f"vectors of width {vectors.shape[1]} after others of width {self.dimension}")
        if self._is_durable:
            self._known.add(ids)
        start = 0
        while start < len(documents):
            part = self._part_with_room()
            room = len(documents) if self._part_rows is None else self._part_rows - part.rows
            stop = min(start + room, len(documents))
            with part.vectors.open("ab", buffering=0) as file:
                view = memoryview(np.ascontiguousarray(vectors[start:stop]).data).cast("B")
                while len(view):
                    view = view[self._disk.write(file, view) :]
                if self._is_durable:
                    self._disk.fsync(file.fileno())
            part.documents.append(documents[start:stop], ids[start:stop])
            part.rows += stop - start
            start = stop

    def source(self, part: Part) -> FileSource:
        """A part's vectors."""
        return FileSource(part.vectors, self.dimension or 0, part.rows)

    def read_rows(self, rows: NDArray[np.int64]) -> Vectors:
        """Vectors of rows counted over all parts."""
        out = np.empty((len(rows), self.dimension or 0), dtype=np.float32)
        first = 0
        for part in self.parts:
            inside = (rows >= first) & (rows < first + part.rows)
            if inside.any():
                out[inside] = self.source(part).take(rows[inside] - first)
            first += part.rows
        return out

    def row_of_repeated(self, ids: Sequence[Id]) -> tuple[Id, int, int] | None:
        """The first of the next rows' ids that a row before it has: (id, earlier row, its row); for a durable spool."""
        suspects = self._known.suspects(ids)
        if not suspects:
            return None
        seen: dict[Id, int] = {}
        first = 0
        for part in self.parts:
            part.documents.make_lookup()
            for name, rows in part.documents.rows_of(suspects).items():
                seen.setdefault(name, first + rows[0])
            first += part.rows
        for row, name in enumerate(ids, start=first):
            if name in seen:
                return name, seen[name], row
            seen[name] = row
        return None

    def is_row(self, row: int, document: Document, name: Id) -> bool:
        """Whether that is what a row holds, counted over all parts."""
        for part in self.parts:
            if row < part.rows:
                return part.documents.is_row(row, document, name)
            row -= part.rows
        return False

    def _part_with_room(self) -> Part:
        if not self.parts or (self._part_rows is not None and self.parts[-1].rows >= self._part_rows):
            number = len(self.parts)
            path, vectors = names_of(self.folder, number)
            writer = DocumentWriter(path, self._disk, is_durable=self._is_durable)
            vectors.touch()
            self.parts.append(Part(vectors, writer))
        return self.parts[-1]

    def close(self) -> None:
        """Close the databases."""
        for part in self.parts:
            part.documents.close()
