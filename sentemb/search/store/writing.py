"""Making the immutable files of segments, and the lock and commit around every change."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sentemb.errors import IndexLocked, SearchError
from sentemb.progress import Progress
from sentemb.search.store import manifest as manifests
from sentemb.search.store.disk import Disk, HashedFile
from sentemb.search.store.documents import DocumentWriter
from sentemb.search.store.manifest import Manifest, SegmentEntry, StoredFile
from sentemb.search.store.segment import TAIL, verify_file
from sentemb.search.store.spool import BLOCK, VectorSource
from sentemb.search.vectors.faiss_vectors import Mask, VectorIndex

LOCK = ".lock"
STAGING = "building"  # a build's spool, kept for --resume
CHANGES = "changing"  # an addition's spool, worthless after a crash


@contextmanager
def write_lock(folder: Path) -> Iterator[None]:
    """Hold the index's write lock; the kernel frees it when the process ends, however it ends.

    Raises:
        IndexLocked: another process (or handle) holds it.
    """
    if folder.exists() and not folder.is_dir():
        raise SearchError(f"{folder}: is a file; an index is a folder: name another place")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        raise _gave_up(folder) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "unknown"
            raise IndexLocked(
                f"{folder}: process {holder} is writing to this index; one writer at a time: wait until it is done "
                "(searching needs no lock)"
            ) from None
        if not _is_same(descriptor, folder / LOCK):  # a failed first build removed it meanwhile
            raise _gave_up(folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            with suppress(OSError):  # the next writer may be there already, or somebody removed all of it
                if os.listdir(folder) == [LOCK]:  # nothing came of it: leave nothing
                    (folder / LOCK).unlink()
                    if is_new:
                        folder.rmdir()
    finally:
        os.close(descriptor)


def _gave_up(folder: Path) -> IndexLocked:
    return IndexLocked(f"{folder}: another process gave up writing here at this moment; try again")


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def on_disk(folder: Path) -> Manifest | None:
    """The generation that holds now, also where its writer was stopped right after the commit.

    Raises:
        SearchError: the manifest is damaged.
    """
    return manifests.read(folder) if (folder / manifests.NAME).exists() else None


def sweep(folder: Path, current: Manifest | None, disk: Disk) -> None:
    """Remove what a killed writer left: files that the manifest does not name. Only under the lock."""
    named = {manifests.NAME, LOCK} | ({file.name for file in current.files} if current else set())
    for entry in folder.iterdir():
        if entry.name == CHANGES and entry.is_dir():
            remove_folder(entry, disk)
        elif entry.is_file() and entry.name not in named and _is_ours(entry.name):
            disk.remove(entry)


def segment_file(generation: int, number: int, suffix: str) -> str:
    """Name of a file of a segment that a generation added."""
    return f"g{generation:08d}-{number:04d}.{suffix}"


def _is_ours(name: str) -> bool:
    return (name.startswith("g") and name.split(".")[0][1:9].isdigit()) or name.startswith(manifests.NAME)


def remove_folder(folder: Path, disk: Disk) -> None:
    """Remove a flat folder and its files."""
    if folder.is_dir():
        for entry in folder.iterdir():
            disk.remove(entry)
        folder.rmdir()


def commit(folder: Path, disk: Disk, new: Manifest, old: Manifest | None) -> None:
    """Make ``new`` the index, then remove what only ``old`` named. The rename inside is the commit point."""
    disk.sync_folder(folder)  # the names of the new files are on the disk before anything refers to them
    disk.replace_text(folder / manifests.NAME, manifests.to_text(new))
    kept = {file.name for file in new.files}
    for file in old.files if old else ():
        if file.name not in kept:
            with suppress(OSError):  # the change holds; the next writer sweeps again
                disk.remove(folder / file.name)


@dataclass(frozen=True)
class VectorFiles:
    """A segment's files that are made of its vectors."""

    index: StoredFile
    half: StoredFile | None


@dataclass(frozen=True)
class Recipe:
    """What a new segment is made with."""

    folder: Path
    disk: Disk
    manifest: Manifest  # of the generation being made
    title: str = "indexing"

    def empty(self, *, is_tail: bool) -> VectorIndex:
        """An empty index that takes vectors: trained where the kind needs it.

        Raises:
            SearchError: the trained template was altered.
        """
        made = self.manifest
        if is_tail:
            return VectorIndex.create(TAIL, made.dimension, made.metric)
        if made.template is None:
            return VectorIndex.create(made.factory, made.dimension, made.metric)
        verify_file(self.folder, made.template)
        return VectorIndex.read(self.folder / made.template.name, made.factory, made.metric)

    def name(self, number: int, suffix: str) -> str:
        """A file name no other generation has."""
        return segment_file(self.manifest.generation, number, suffix)

    def segment(
        self, number: int, source: VectorSource, documents: DocumentWriter, *, is_tail: bool,
        index: VectorIndex | None = None,
    ) -> SegmentEntry:
        """Write one segment from vectors and a filled documents file (which is moved).

        Args:
            index: already filled with the source's rows, where codes were copied instead of vectors added.
        """
        vectors = self.vectors(number, source, is_tail=is_tail, index=index)
        return self.entry(number, source.rows, vectors, documents, is_tail=is_tail)

    def vectors(
        self, number: int, source: VectorSource, *, is_tail: bool, index: VectorIndex | None = None
    ) -> VectorFiles:
        """Write a segment's FAISS file and, where the index re-scores, its half-precision file."""
        made = index if index is not None else self.filled(source, is_tail=is_tail)
        stored = self.disk.store(self.folder / self.name(number, "faiss"), lambda file: made.write(file.write))
        half = None
        if self.manifest.rescored and not is_tail:
            half = self.disk.store(self.folder / self.name(number, "half"), lambda file: _write_half(file, source))
        return VectorFiles(stored, half)

    def entry(
        self, number: int, rows: int, vectors: VectorFiles, documents: DocumentWriter, *, is_tail: bool
    ) -> SegmentEntry:
        """A segment of vector files that lie in the folder and a filled documents file (which is moved)."""
        documents.close()
        adopted = self.disk.adopt(documents.path)
        name = self.name(number, "documents")
        self.disk.rename(documents.path, self.folder / name)
        return SegmentEntry(
            rows=rows, is_tail=is_tail, index=vectors.index,
            documents=StoredFile(name, adopted.bytes, adopted.sha256), half=vectors.half,
        )

    def deletions(self, number: int, entry: SegmentEntry, live: Mask) -> SegmentEntry:
        """The entry with other deletions."""
        deleted = int((~live).sum())
        if deleted == 0:
            return replace(entry, deleted=None, deleted_rows=0)
        bits = np.packbits(~live, bitorder="little").tobytes()
        stored = self.disk.store(self.folder / self.name(number, "deleted"), lambda file: _discard(file.write(bits)))
        return replace(entry, deleted=stored, deleted_rows=deleted)

    def filled(self, source: VectorSource, *, is_tail: bool) -> VectorIndex:
        """An index with the source's vectors.

        Raises:
            SearchError: they have another width than the index.
        """
        made = self.empty(is_tail=is_tail)
        if source.dimension != made.dimension:
            raise SearchError(f"vectors of width {source.dimension}; the index keeps {made.dimension}")
        with Progress(self.title, total=source.rows, unit="vectors") as bar:
            for start in range(0, source.rows, BLOCK):
                block = source.block(start, min(start + BLOCK, source.rows))
                made.add(block)
                bar.advance(len(block))
        return made


def _write_half(file: HashedFile, source: VectorSource) -> None:
    for start in range(0, source.rows, BLOCK):
        block = source.block(start, min(start + BLOCK, source.rows))
        if np.abs(block).max(initial=0) > np.finfo(np.float16).max:
            raise SearchError("re-scoring keeps half precision, and a value is beyond 65504; build without rescore")
        file.write(block.astype(np.float16).tobytes())


def _discard(_: int) -> None:
    """The number of bytes is of no use."""
