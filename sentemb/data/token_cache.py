"""Token ids on disk, by the hash of what they were made from; read memory-mapped, verified, bounded in size."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentemb.files import atomic_folder, sha256_of, write_json
from sentemb.types import TokenColumn

CAPACITY_BYTES = 10 * 2**30
_FILES = ("flat.npy", "offsets.npy")


class TokenCache:
    """One folder an entry: ``flat.npy``, ``offsets.npy``, ``entry.json`` with their checksums.

    A damaged entry counts as absent; a folder that cannot be written makes an empty cache. The least recently used
    entries go when they take more than ``capacity_bytes`` together.
    """

    def __init__(self, folder: Path, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.folder, self.capacity_bytes = folder, capacity_bytes

    def load(self, key: str, text: NDArray[np.int64]) -> TokenColumn | None:
        """The entry's tokens as rows of the texts with these hashes, or None."""
        entry = self.folder / key
        try:
            checksums = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
            for name in _FILES:
                if sha256_of(entry / name) != checksums[name]:
                    return None
            flat = np.load(entry / "flat.npy", mmap_mode="r", allow_pickle=False)
            offsets = np.load(entry / "offsets.npy", allow_pickle=False)
            os.utime(entry)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if flat.dtype != np.int32 or offsets.dtype != np.int64 or len(offsets) != len(text) + 1:
            return None
        return TokenColumn(flat=np.asarray(flat), offsets=offsets, text=text)

    def store(self, key: str, column: TokenColumn) -> None:
        """Keep a column; a full or read-only disk is no reason to stop."""
        try:
            with atomic_folder(self.folder / key) as entry:
                np.save(entry / "flat.npy", column.flat, allow_pickle=False)
                np.save(entry / "offsets.npy", column.offsets, allow_pickle=False)
                write_json(entry / "entry.json", {name: sha256_of(entry / name) for name in _FILES})
            self._prune(key)
        except OSError:
            pass  # also where another process of the run stored the same entry at this moment

    def _prune(self, newest: str) -> None:
        entries = [path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        entries.sort(key=lambda path: (path.name == newest, path.stat().st_mtime), reverse=True)
        total = 0
        for entry in entries:
            total += sum(file.stat().st_size for file in entry.iterdir())
            if total > self.capacity_bytes and entry.name != newest:
                shutil.rmtree(entry, ignore_errors=True)
