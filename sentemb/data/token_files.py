"""Token columns on disk, mapped into memory: written once by content, the least recently used ones removed.

    CACHE/tokens/DIGEST/anchor.bin …        token ids, row after row, in two bytes each where they fit
    CACHE/tokens/DIGEST/anchor.offsets.npy  where every row starts
    CACHE/tokens/DIGEST/entry.json          number format by role, SHA-256 of the files
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from sentemb.files import atomic_folder, sha256_of
from sentemb.types import TokenColumn

CACHE_BYTES = 10 * 2**30  # what token ids on disk may take together; a larger data set takes what it needs
_NARROW, _WIDE = "<u2", "<i4"


def load_columns(folder: Path, text: Mapping[str, NDArray[np.int64]]) -> dict[str, TokenColumn] | None:
    """The columns of the texts with these hashes; None where they are absent, or differ from their checksums."""
    try:
        entry = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        if any(sha256_of(folder / name) != digest for name, digest in entry["sha256"].items()):
            return None
        columns = {role: _mapped(folder, role, entry["dtype"][role], hashes) for role, hashes in text.items()}
        os.utime(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return columns


def _name(role: str) -> str:
    return role.replace("/", "-")  # a view's own columns are called anchor/2


def _mapped(folder: Path, role: str, dtype: str, text: NDArray[np.int64]) -> TokenColumn:
    offsets = np.load(folder / f"{_name(role)}.offsets.npy", mmap_mode="r", allow_pickle=False)
    if len(offsets) != len(text) + 1:
        raise ValueError(f"{role}: {len(offsets)} offsets")
    size = int(offsets[-1])
    # no file of size 0 can be mapped
    file = folder / f"{_name(role)}.bin"
    flat = np.memmap(file, dtype=dtype, mode="r", shape=(size,)) if size else np.zeros(0, dtype)
    return TokenColumn(flat=np.asarray(flat), offsets=np.asarray(offsets), text=text)


def store_columns(folder: Path, roles: Iterable[str], chunks: Iterable[Mapping[str, TokenColumn]]) -> None:
    """Write the chunks' rows one after the other; OSError where the disk is full or not to be written."""
    with atomic_folder(folder) as temporary:
        with ExitStack() as stack:
            files = {role: stack.enter_context(_ColumnFile(temporary, role)) for role in roles}
            for chunk in chunks:
                for role, file in files.items():
                    file.add(chunk[role])
        for file in files.values():
            np.save(temporary / f"{_name(file.role)}.offsets.npy", file.offsets())
        sums = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        entry: dict[str, Any] = {"dtype": {role: file.dtype for role, file in files.items()}, "sha256": sums}
        (temporary / "entry.json").write_text(json.dumps(entry, indent=1), encoding="utf-8")
    _remove_oldest(folder)


class _ColumnFile:
    """Token ids of one column, appended to a file."""

    def __init__(self, folder: Path, role: str) -> None:
        self.role, self.dtype = role, _NARROW
        self._path = folder / f"{_name(role)}.bin"
        self._file = self._path.open("wb")
        self._lengths: list[NDArray[np.int32]] = []

    def __enter__(self) -> _ColumnFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, column: TokenColumn) -> None:
        if self.dtype == _NARROW and column.flat.max(initial=0) > np.iinfo(np.uint16).max:
            self._widen()
        self._file.write(column.flat.astype(self.dtype).tobytes())
        self._lengths.append(column.lengths.astype(np.int32))

    def _widen(self) -> None:
        """Rewrite what is there with four bytes an id; a large vocabulary shows in the first texts."""
        self._file.close()
        ids = np.fromfile(self._path, dtype=_NARROW)
        self.dtype = _WIDE
        self._file = self._path.open("wb")
        self._file.write(ids.astype(self.dtype).tobytes())

    def offsets(self) -> NDArray[np.int64]:
        lengths = np.concatenate(self._lengths or [np.zeros(0, dtype=np.int32)])
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return offsets


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes, which may be of the same run, from writing the same entry; OSError where it cannot be."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        yield


def _remove_oldest(newest: Path) -> None:
    """Remove the entries least recently used until the others fit; a mapped one stays readable where it is mapped."""
    entries = sorted(
        (path for path in newest.parent.iterdir() if path.is_dir() and not path.name.startswith(".")),
        key=lambda path: path.stat().st_mtime, reverse=True,
    )
    sizes = accumulate(sum(file.stat().st_size for file in path.iterdir()) for path in entries)
    for path, size in zip(entries, list(sizes), strict=True):
        if size > CACHE_BYTES and path != newest:
            shutil.rmtree(path, ignore_errors=True)
            (path.parent / f".{path.name}.lock").unlink(missing_ok=True)
