"""The one way in which rows become the files of a segment: a build, an addition and a rewriting all end here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.search.store.commit import file_name
from sentemb.search.store.disk import Disk, HashedFile
from sentemb.search.store.documents import Documents, DocumentWriter, Row
from sentemb.search.store.manifest import SegmentEntry, StoredFile
from sentemb.search.store.words import WordRule
from sentemb.search.vectors.kind import Mask, Rows, VectorIndex, Vectors

BLOCK = 8192  # rows in memory at a time


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows on their way into a segment."""

    rows: Sequence[Row]
    vectors: Vectors | None  # None: nothing needs them, because the index has the rows already
    is_indexed: bool = False  # the index has taken the rows' codes
    cut: int = 0  # documents whose end the model did not read


class RowSource(Protocol):
    """Rows that were written before."""

    rows: int
    documents: Documents

    def exact_vectors(self, rows: Rows) -> Vectors: ...


@dataclass(frozen=True, kw_only=True)
class SegmentWriter:
    """Writes segments of one generation (or of a build's draft) into a folder. It holds no open file, so it can be
    sent to other processes; what it has written counts when its entry is committed."""

    folder: Path
    disk: Disk
    generation: int
    prefix: Literal["g", "d", "s"] = "g"  # of file names: changes, segments that a build makes, its encoded rows
    indexed_fields: tuple[str, ...] = ()
    words: WordRule | None = None

    def write(
        self, number: int, blocks: Iterable[Block], index: VectorIndex | None, *, is_tail: bool = False,
        is_rescored: bool = False,
    ) -> SegmentEntry:
        """Write one segment.

        Args:
            number: of the segment; no other of the generation has it.
            index: takes the vectors; None: they are kept as float32 rows.
            is_tail: a small addition, exact until it is merged.
            is_rescored: also keep half-precision vectors.
        """
        kinds = [("rows", np.float32)] * (index is None) + [("half", np.float16)] * is_rescored
        documents = DocumentWriter(self.path(number, "documents"), self.disk)
        files: dict[str, HashedFile] = {}
        cut = 0
        try:
            for name, _ in kinds:
                files[name] = HashedFile(self.disk, self.path(number, name))
            for block in blocks:
                documents.append(block.rows)
                cut += block.cut
                if block.vectors is not None:
                    if index is not None and not block.is_indexed:
                        index.add(block.vectors)
                    for name, kind in kinds:
                        files[name].write(_as(kind, block.vectors).tobytes())
            if index is not None:
                files["index"] = HashedFile(self.disk, self.path(number, "index"))
                index.save(files["index"].write)
            stored = {name: file.close() for name, file in files.items()}
            stored["documents"] = documents.close(self.indexed_fields, self.words)
        finally:
            documents.abandon()
            for file in files.values():
                file.abandon()
        return SegmentEntry(
            rows=documents.rows, is_tail=is_tail, index=stored["rows" if index is None else "index"],
            documents=stored["documents"], half=stored.get("half"), cut=cut,
        )

    def write_deletions(self, number: int, entry: SegmentEntry, live: Mask) -> SegmentEntry:
        """The entry with other deletions."""
        deleted = int((~live).sum())
        if deleted == 0:
            return replace(entry, deleted=None, deleted_rows=0)
        with self.disk.create(self.path(number, "deleted")) as file:
            file.write(np.packbits(~live, bitorder="little").tobytes())
            return replace(entry, deleted=file.close(), deleted_rows=deleted)

    def write_index(self, number: int, index: VectorIndex, suffix: str) -> StoredFile:
        """Write an index alone."""
        with self.disk.create(self.path(number, suffix)) as file:
            index.save(file.write)
            return file.close()

    def write_documents(self, number: int, entry: SegmentEntry, source: RowSource) -> SegmentEntry:
        """Write a segment's documents anew, with the words and indexes of now; gives the entry with that file."""
        documents = DocumentWriter(self.path(number, "documents"), self.disk)
        try:
            for block in stored_blocks(source, np.arange(source.rows), with_vectors=False):
                documents.append(block.rows)
            stored = documents.close(self.indexed_fields, self.words)
        finally:
            documents.abandon()
        return replace(entry, documents=stored)

    def path(self, number: int, suffix: str) -> Path:
        """Where a file of a segment goes."""
        return self.folder / file_name(self.prefix, self.generation, number, suffix)


def _as(kind: type, vectors: Vectors) -> NDArray[Any]:
    if kind is np.float16 and np.abs(vectors).max(initial=0) > np.finfo(np.float16).max:
        raise SearchError("re-scoring keeps half precision, and a value is beyond 65504; build without rescore")
    return vectors.astype(kind, copy=False)


def stored_blocks(
    source: RowSource, rows: Rows, *, with_vectors: bool = True, is_indexed: bool = False
) -> Iterator[Block]:
    """Chosen rows of a segment, block by block."""
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        vectors = source.exact_vectors(part) if with_vectors else None
        yield Block(rows=source.documents.raw(part.tolist()), vectors=vectors, is_indexed=is_indexed)
