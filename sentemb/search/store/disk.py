"""The one place where an index writes: hashed files, flushed before they count; commits; the lock of the one writer.

Nothing else in ``search/`` opens a file for writing, so tests put a failing disk in place of the first functions here
(full, or with an fsync that reports an error).
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from sentemb.errors import IndexLocked, SearchError
from sentemb.files import fsync_path, sha256_of
from sentemb.search.store import manifest as manifests
from sentemb.search.store.manifest import DRAFT, NAME, Draft, Manifest, StoredFile

LOCK = ".sentemb-lock"  # not a name that somebody else's file may have
_OURS = re.compile(r"[gds]\d{8}-[0-9a-f]{4,}\.(index|documents|half|deleted|trained|rows)")
fsync, sync_folder, rename = os.fsync, fsync_path, os.replace


def write(file: BinaryIO, view: memoryview) -> int:
    """One write call; an error of the system's gets the file's name, which the system leaves out."""
    try:
        return file.write(view)
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from None


def remove(path: Path) -> None:
    """Remove a file if it is there."""
    path.unlink(missing_ok=True)


def connect(path: Path) -> sqlite3.Connection:
    """A writable SQLite database that is not yet part of an index."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


class HashedFile:
    """A new file that a second thread hashes while it is written; made by ``create``."""

    def __init__(self, file: BinaryIO, thread: ThreadPoolExecutor) -> None:
        self._file, self._thread = file, thread
        self._digest, self._bytes = hashlib.sha256(), 0

    def write(self, chunk: bytes) -> None:
        """Append."""
        view = memoryview(chunk).cast("B")
        hashing = self._thread.submit(self._digest.update, view)
        self._bytes += len(view)
        while view:
            view = view[write(self._file, view) :]
        hashing.result()

    def flush(self) -> None:
        """Have it whole on the disk."""
        fsync(self._file.fileno())

    def finish(self) -> StoredFile:
        """Flush to the disk; gives name, size and checksum."""
        self.flush()
        return StoredFile(name=Path(self._file.name).name, bytes=self._bytes, sha256=self._digest.hexdigest())


@contextmanager
def create(path: Path) -> Iterator[HashedFile]:
    """A new file to write and ``finish``; one that is not finished is left for the next clean-up."""
    with path.open("xb", buffering=0) as file, ThreadPoolExecutor(max_workers=1) as thread:
        yield HashedFile(file, thread)


def adopt(path: Path) -> StoredFile:
    """Flush and hash a file that something else (SQLite) wrote."""
    with path.open("rb+") as file:
        fsync(file.fileno())
    return StoredFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def replace_text(path: Path, text: str) -> None:
    """Give ``path`` new content so that a crash leaves the old or the new one.

    Where flushing the folder fails after the rename, the old content is put back before the error is raised:
    what is reported as failed has not happened.
    """
    new, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    remove(new)
    with create(new) as file:
        file.write(text.encode("utf-8"))
        file.flush()
    remove(old)
    if path.exists():
        os.link(path, old)
    rename(new, path)
    try:
        sync_folder(path.parent)
    except BaseException:
        if old.exists():
            old.replace(path)
        else:
            path.unlink()
        raise
    with suppress(OSError):  # the new content holds; the next writer removes this
        remove(old)


# ------------------------------------------------------------------------------------------------------ commits
def on_disk(folder: Path) -> Manifest | None:
    """The manifest that holds now; None where the folder holds no index."""
    return manifests.read(folder) if (folder / NAME).exists() else None


def commit(folder: Path, new: Manifest) -> None:
    """Make ``new`` the index, and remove what it does not name. The rename inside is the commit point."""
    sync_folder(folder)  # the names of the new files are on the disk before anything refers to them
    replace_text(folder / NAME, manifests.to_text(new))
    with suppress(OSError):  # the change holds; the next writer sweeps again
        sweep(folder)


def commit_draft(folder: Path, draft: Draft) -> None:
    """Keep a build as far as it has come."""
    sync_folder(folder)
    replace_text(folder / DRAFT, manifests.to_text(draft))


def sweep(folder: Path) -> Draft | None:
    """Remove files of ours that neither the index nor an unfinished build names; gives that build. Only under the lock.

    Raises:
        SearchError: the manifest or the draft is damaged, or a file of that name is none.
    """
    current = on_disk(folder)
    try:
        draft = manifests.read_draft(folder)
    except SearchError as error:
        raise SearchError(f"{error}, or remove {folder / DRAFT} to start over") from None
    if draft is not None and current is not None and draft.made == current:  # published, and its writer stopped then
        remove(folder / DRAFT)
        draft = None
    named = {file.name for record in (current, draft) if record is not None for file in record.files}
    for entry in folder.iterdir():
        if entry.name not in named and _OURS.fullmatch(entry.name) and entry.is_file():
            remove(entry)
    return draft


def discard_draft(folder: Path) -> None:
    """Forget an unfinished build."""
    remove(folder / DRAFT)
    sweep(folder)


@contextmanager
def write_lock(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the index's write lock; the system frees it when the process ends, however it ends.

    Raises:
        IndexLocked: another process (or handle) has held it for ``wait_s`` seconds.
    """
    if folder.exists() and not folder.is_dir():
        raise SearchError(f"{folder}: is a file; an index is a folder: name another place")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise SearchError(f"{path}: is not a plain file, so it cannot be the lock of an index; remove it")
    try:
        with FileLock(path, timeout=wait_s, thread_local=False):
            with suppress(OSError):  # where a locked file cannot be written, nobody learns who holds it
                path.write_text(f"{os.getpid()}\n")
            yield
    except Timeout:
        holder = "unknown"
        with suppress(OSError):
            holder = path.read_text(errors="replace")[:20].strip()
        raise IndexLocked(
            f"{folder}: process {holder} is writing to this index; one writer at a time: wait until it is done, "
            "or say how long to wait (searching needs no lock)"
        ) from None
