"""The one place where an index writes: hashed files, flushed before they count, and folders.

Tests put a failing disk here (full, or with an fsync that reports an error); nothing else in ``search/`` opens a
file for writing.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sentemb.files import fsync_path, sha256_of
from sentemb.search.store.manifest import StoredFile

MAX_UNHASHED = 16  # chunks that may wait for the hashing thread


class HashedFile:
    """A new file that hashes what is written, in a second thread so that hashing and writing overlap."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self.path = path
        self._disk = disk
        self._file: BinaryIO = path.open("xb", buffering=0)
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: list[Future[None]] = []
        self.bytes = 0

    def write(self, chunk: bytes) -> int:
        """Append; gives the number of bytes written (all of them)."""
        view = memoryview(chunk).cast("B")
        self._waiting.append(self._thread.submit(self._digest.update, view))
        written = 0
        while written < len(view):
            written += self._disk.write(self._file, view[written:])
        if len(self._waiting) > MAX_UNHASHED:
            self._waiting.pop(0).result()
        self.bytes += len(view)
        return len(view)

    def close(self) -> StoredFile:
        """Flush to the disk; gives name, size and checksum."""
        self.flush()
        return StoredFile(name=self.path.name, bytes=self.bytes, sha256=self._digest.hexdigest())

    def flush(self) -> None:
        """Have it whole on the disk, and close it."""
        try:
            self._disk.fsync(self._file.fileno())
        finally:
            self._file.close()
            self._thread.shutdown(wait=True)
        for waiting in self._waiting:
            waiting.result()

    def abandon(self) -> None:
        """Close without flushing, if it is open still; the file is left for the next clean-up."""
        self._file.close()
        self._thread.shutdown(wait=True, cancel_futures=True)


class Disk:
    """Writing, flushing, renaming and removing files of an index."""

    def write(self, file: BinaryIO, view: memoryview) -> int:
        """One write call.

        Raises:
            OSError: the system's own, with the file's name, which the system leaves out.
        """
        try:
            return file.write(view)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.name) from None

    def fsync(self, descriptor: int) -> None:
        """Flush one open file."""
        os.fsync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Flush a folder's entries."""
        fsync_path(folder)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file its final name, replacing what has it."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def connect(self, path: Path) -> sqlite3.Connection:
        """A writable SQLite database that is not yet part of an index."""
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    @contextmanager
    def create(self, path: Path) -> Iterator[HashedFile]:
        """A new file to fill; ``close`` it inside, and it is whole, on the disk."""
        file = HashedFile(self, path)
        try:
            yield file
        finally:
            file.abandon()

    def adopt(self, path: Path) -> StoredFile:
        """Flush and hash a file that something else (SQLite) wrote."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            self.fsync(descriptor)
        finally:
            os.close(descriptor)
        return StoredFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))

    def replace_text(self, path: Path, text: str) -> None:
        """Give ``path`` new content so that a crash leaves the old or the new one.

        Where flushing the folder fails after the rename, the old content is put back before the error is raised:
        what is reported as failed has not happened.
        """
        new, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
        self.remove(new)
        with self.create(new) as file:
            file.write(text.encode("utf-8"))
            file.flush()
        self.remove(old)
        had_old = path.exists()
        if had_old:
            os.link(path, old)
        self.rename(new, path)
        try:
            self.sync_folder(path.parent)
        except BaseException:
            if had_old:
                old.replace(path)
            else:
                path.unlink()
            raise
        with suppress(OSError):  # the new content holds; the next writer removes this
            self.remove(old)
