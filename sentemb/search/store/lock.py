"""One writer at a time: the lock of an index's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sentemb.errors import IndexLocked, SearchError

LOCK = ".sentemb-lock"  # not a name that somebody else's file may have


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
