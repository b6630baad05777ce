"""Files that are whole or absent (temporary name, fsync, rename), their checksums, and where sentemb's own lie."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """``$SENTEMB_CACHE``, or ``sentemb`` in the user's cache folder: what may be lost and is made again."""
    given, user_cache = os.environ.get("SENTEMB_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(given) if given else Path(user_cache or Path.home() / ".cache") / "sentemb"


def share_dir(*parts: str) -> Path:
    """The folder ``parts`` of the files that travel with sentemb: ``"recipes"``, ``"eval", "suites"``.

    They are in ``sentemb/_share`` of a wheel, and at the top of a source checkout (also an editable install).
    """
    package = Path(__file__).resolve().parent
    installed = package / "_share"
    return (installed if installed.is_dir() else package.parent).joinpath(*parts)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Flush a file or a folder's entries to the disk; Windows keeps folders' entries by itself and opens none."""
    on_windows = os.name == "nt"
    if on_windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed and takes ``path``'s name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        fsync_path(temporary)
        temporary.replace(path)
        fsync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the given order, one trailing newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success every file is flushed and it takes ``path``'s name.

    A folder that lies at ``path`` is moved aside first and removed last, so a crash leaves the old or the new one
    (between the two renames: the old one under ``.NAME.old``; the next call finishes or undoes it).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.parent / f".{path.name}.old"
    if old.is_dir() and path.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.is_dir():
        old.replace(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        for entry in [*temporary.rglob("*"), temporary]:
            entry.chmod((0o777 if entry.is_dir() else 0o666) & ~_umask())  # safetensors writes files of mode 0600
            fsync_path(entry)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        fsync_path(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
