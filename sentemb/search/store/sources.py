"""Where the rows of a build come from: given vectors, or the rows that a draft keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.data.faults import Faults
from sentemb.errors import SearchError
from sentemb.progress import Progress
from sentemb.search.store.documents import Documents, Row
from sentemb.search.store.embedding import VectorRule
from sentemb.search.store.manifest import Document, Draft, SegmentEntry
from sentemb.search.store.records import Numbering, as_rows
from sentemb.search.store.writing import BLOCK, Block
from sentemb.search.vectors.kind import Rows, Vectors


class GivenRows:
    """Vectors of an array (or memory map), truncated and normalised block by block, with their documents.

    Args:
        records: documents in the order of the vectors; None: there are none.
    """

    def __init__(
        self, vectors: Vectors, records: Iterable[Any] | None, rule: VectorRule, skipped: Faults | None = None,
        numbering: Numbering | None = None,
    ) -> None:
        self._vectors, self._rule = vectors, rule
        self.rows = len(vectors)
        self.dimension = rule.apply(vectors[:1], "vectors").shape[1]
        self._numbering = numbering or Numbering(0, is_unique=True)
        documents = repeat(Document(None, None), self.rows) if records is None else iter(records)
        self._documents = chain.from_iterable(as_rows(documents, self._numbering, with_text=False, skipped=skipped))

    @property
    def next_id(self) -> int:
        """The first free number for documents without an id."""
        return self._numbering.next_id

    def blocks(self, start: int, stop: int, bar: Progress | None = None) -> Iterator[Block]:
        """Rows start … stop - 1; documents are read once, so parts are asked for in order."""
        for first in range(start, stop, BLOCK):
            last = min(first + BLOCK, stop)
            rows = list(islice(self._documents, last - first))
            if len(rows) < last - first:
                raise SearchError(f"{self.rows} vectors, but only {first + len(rows)} documents")
            yield Block(rows=rows, vectors=self.vectors(first, last))
            if bar is not None:
                bar.advance(len(rows))
        if stop == self.rows and next(self._documents, None) is not None:
            raise SearchError(f"{self.rows} vectors, but more documents")

    def vectors(self, start: int, stop: int) -> Vectors:
        """Vectors of rows start … stop - 1."""
        return self._rule.apply(self._vectors[start:stop], "vectors")

    def take(self, rows: Rows) -> Vectors:
        """Vectors of the given rows."""
        return self._rule.apply(self._vectors[rows], "vectors")


class StagedPart:
    """Rows of one commit to a draft: documents, and vectors as float32 rows."""

    def __init__(self, folder: Path, entry: SegmentEntry) -> None:
        self.rows, self.cut = entry.rows, entry.cut
        self.dimension = entry.index.bytes // (4 * entry.rows)
        self.documents = Documents(folder / entry.documents.name, entry.rows)
        self._path = folder / entry.index.name

    def exact_vectors(self, rows: Rows) -> Vectors:
        """Vectors of the rows."""
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:  # a plain read; a memory map counts as memory in use
            start, count = int(rows[0]) * self.dimension, len(rows) * self.dimension
            return np.fromfile(self._path, np.float32, count, offset=4 * start).reshape(len(rows), -1)
        mapped = np.memmap(self._path, np.float32, mode="r", shape=(self.rows, self.dimension))
        return np.array(mapped[rows])


class StagedRows:
    """All rows that a draft keeps, in their order."""

    def __init__(self, folder: Path, draft: Draft) -> None:
        self._where = folder.resolve(), draft
        self._parts = [StagedPart(folder, entry) for entry in draft.rows]
        self.rows = sum(part.rows for part in self._parts)
        self.dimension = self._parts[0].dimension if self._parts else 0

    def __reduce__(self) -> tuple[Any, ...]:
        return StagedRows, self._where  # another process opens the files itself

    @property
    def next_id(self) -> int:
        """The first free number for documents without an id."""
        largest = max((part.documents.largest_integer() for part in self._parts), default=-1)
        return min(largest + 1, 2**63 - 1)

    def all_rows(self) -> Iterator[Row]:
        """Every document as it is kept."""
        for part in self._parts:
            for start in range(0, part.rows, BLOCK):
                yield from part.documents.raw(range(start, min(start + BLOCK, part.rows)))

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Rows start … stop - 1."""
        before = 0
        for part in self._parts:
            first, last = max(start - before, 0), min(stop - before, part.rows)
            for begin in range(first, last, BLOCK):
                rows = np.arange(begin, min(begin + BLOCK, last))
                cut = part.cut if begin == 0 else 0
                yield Block(rows=part.documents.raw(rows.tolist()), vectors=part.exact_vectors(rows), cut=cut)
            before += part.rows

    def vectors(self, start: int, stop: int) -> Vectors:
        """Vectors of rows start … stop - 1."""
        return self.take(np.arange(start, min(stop, self.rows)))

    def take(self, rows: Rows) -> Vectors:
        """Vectors of the given rows, which ascend."""
        out = np.empty((len(rows), self.dimension), dtype=np.float32)
        before = 0
        for part in self._parts:
            inside = (rows >= before) & (rows < before + part.rows)
            if inside.any():
                out[inside] = part.exact_vectors(rows[inside] - before)
            before += part.rows
        return out

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            part.documents.close()
