"""Commits, under the lock of the one writer: what a manifest or a draft names is kept, everything else that a killed
writer left is removed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sentemb.errors import IndexLocked, SearchError
from sentemb.search.store import manifest as manifests
from sentemb.search.store.disk import Disk
from sentemb.search.store.manifest import DRAFT, NAME, Draft, Manifest

LOCK = ".sentemb-lock"  # not a name that somebody else's file may have
_OURS = re.compile(r"[gds]\d{8}-\d{4,}\.[a-z.]+")


def on_disk(folder: Path) -> Manifest | None:
    """The generation that holds now, also where its writer was stopped right after the commit.

    Raises:
        SearchError: the manifest is damaged, or a file of that name is none.
    """
    return manifests.read(folder) if (folder / NAME).exists() else None


def file_name(prefix: str, generation: int, number: int, suffix: str) -> str:
    """Name of a file that no other generation, and no other build, has."""
    return f"{prefix}{generation:08d}-{number:04d}.{suffix}"


def commit(folder: Path, disk: Disk, new: Manifest, old: Manifest | None) -> None:
    """Make ``new`` the index, then remove what only ``old`` named. The rename inside is the commit point."""
    disk.sync_folder(folder)  # the names of the new files are on the disk before anything refers to them
    disk.replace_text(folder / NAME, manifests.to_text(new))
    named = {file.name for file in new.files}
    for file in old.files if old else ():
        if file.name not in named:
            with suppress(OSError):  # the change holds; the next writer sweeps again
                disk.remove(folder / file.name)


def commit_draft(folder: Path, disk: Disk, draft: Draft) -> None:
    """Keep a build as far as it has come."""
    disk.sync_folder(folder)
    disk.replace_text(folder / DRAFT, manifests.to_text(draft))


def sweep(folder: Path, disk: Disk) -> Draft | None:
    """Remove files of ours that neither the index nor an unfinished build names; gives that build. Only under the lock.

    A folder that holds neither is somebody else's: nothing in it is touched.

    Raises:
        SearchError: the manifest or the draft is damaged, or a file of that name is none.
    """
    current, draft = on_disk(folder), _draft(folder)
    if current is None and draft is None:
        return None
    published = {file.name for file in current.files} if current else set()
    if draft is not None and draft.made is not None and published:
        made = {segment.index.name for segment in draft.made.segments}
        if made and made <= published:  # its writer was stopped between publishing it and removing it
            draft = None
    named = published | ({file.name for file in draft.files} if draft else set())
    if draft is None:
        disk.remove(folder / DRAFT)
    for entry in folder.iterdir():
        if entry.name not in named and _OURS.fullmatch(entry.name) and entry.is_file():
            disk.remove(entry)
    return draft


def _draft(folder: Path) -> Draft | None:
    try:
        return manifests.read_draft(folder)
    except SearchError as error:
        raise SearchError(f"{error}, or remove {folder / DRAFT} to start over") from None


def discard_draft(folder: Path, disk: Disk) -> None:
    """Forget an unfinished build of which nothing is worth keeping."""
    current = on_disk(folder)
    published = {file.name for file in current.files} if current else set()
    for entry in folder.iterdir():
        if entry.name not in published and entry.name[0] in "ds" and _OURS.fullmatch(entry.name):
            disk.remove(entry)
    disk.remove(folder / DRAFT)


@contextmanager
def write_lock(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the index's write lock; the system frees it when the process ends, however it ends.

    Args:
        wait_s: how long to wait for another writer.

    Raises:
        IndexLocked: another process (or handle) holds it.
    """
    if folder.exists() and not folder.is_dir():
        raise SearchError(f"{folder}: is a file; an index is a folder: name another place")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise SearchError(f"{path}: is not a plain file, so it cannot be the lock of an index; remove it")
    lock = FileLock(path, timeout=wait_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise IndexLocked(
            f"{folder}: process {_holder(path)} is writing to this index; one writer at a time: wait until it is done, "
            "or say how long to wait (searching needs no lock)"
        ) from None
    except FileNotFoundError:
        raise _gave_up(folder) from None
    try:
        if not path.exists():  # a failed first build removed it meanwhile
            raise _gave_up(folder)
        with suppress(OSError):  # where a locked file cannot be written, nobody learns who holds it
            path.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            with suppress(OSError):  # the next writer may be there already, or somebody removed all of it
                if os.listdir(folder) == [LOCK]:  # nothing came of it: leave nothing
                    path.unlink()
                    if is_new:
                        folder.rmdir()
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:20].strip() or "unknown"
    except OSError:
        return "unknown"


def _gave_up(folder: Path) -> IndexLocked:
    return IndexLocked(f"{folder}: another process gave up writing here at this moment; try again")
