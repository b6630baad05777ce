"""A column of texts that need not fit into memory."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError
from sentemb.files import cache_dir

HELD = 2**18  # texts of a column in memory; more are written to a temporary file
_CHUNK = 16_384  # texts that iterating reads at a time


class Texts(Sequence[str]):
    """Texts in their order; beyond the first many they lie in a temporary file without a name, which ends with us."""

    def __init__(self) -> None:
        self._held: list[str] = []  # those behind the written ones
        self._file: IO[bytes] | None = None
        self._ends: list[NDArray[np.int64]] = []  # of the written texts in the file, block by block
        self._written = self._bytes = 0

    def extend(self, texts: Iterable[str]) -> None:
        """Append texts."""
        self._held.extend(texts)
        if len(self._held) >= HELD:
            self._write()

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` texts, where there are more."""
        if count >= self._written:
            del self._held[count - self._written :]
            return
        self._ends = [self._all_ends()[:count]]
        self._bytes = int(self._ends[0][-1]) if count else 0
        self._written, self._held = count, []

    def plain(self) -> Sequence[str]:
        """A list, where nothing was written."""
        return self._held if self._file is None else self

    def __len__(self) -> int:
        return self._written + len(self._held)

    @overload
    def __getitem__(self, which: int) -> str: ...

    @overload
    def __getitem__(self, which: slice) -> list[str]: ...

    def __getitem__(self, which: int | slice) -> str | list[str]:
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step != 1:
                return [self[i] for i in range(start, stop, step)]
            behind = self._held[max(start - self._written, 0) : max(stop - self._written, 0)]
            return self._read(start, min(stop, self._written)) + behind
        row = range(len(self))[which]
        return self._read(row, row + 1)[0] if row < self._written else self._held[row - self._written]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]

    def _write(self) -> None:
        # surrogatepass: a str from outside our readers may hold lone surrogates
        encoded = [text.encode("utf-8", "surrogatepass") for text in self._held]
        try:
            if self._file is None:
                self._file = temporary_file()
                weakref.finalize(self, self._file.close)
            self._file.seek(self._bytes)
            self._file.writelines(encoded)
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"the data do not fit into the temporary file beside {cache_dir()}: {error}; make room, or set "
                "SENTEMB_CACHE to a folder on a larger disk"
            ) from error
        ends = self._bytes + np.cumsum([len(text) for text in encoded], dtype=np.int64)
        self._ends.append(ends)
        self._bytes = int(ends[-1])
        self._written += len(self._held)
        self._held = []

    def _all_ends(self) -> NDArray[np.int64]:
        if len(self._ends) != 1:
            self._ends = [np.concatenate(self._ends or [np.zeros(0, dtype=np.int64)])]
        return self._ends[0]

    def _read(self, start: int, stop: int) -> list[str]:
        """Written texts."""
        if start >= stop:
            return []
        assert self._file is not None
        ends = self._all_ends()[max(start - 1, 0) : stop].tolist()
        edges = ends if start else [0, *ends]
        self._file.seek(edges[0])
        block = self._file.read(edges[-1] - edges[0])
        places = [edge - edges[0] for edge in edges]
        return [block[begin:end].decode("utf-8", "surrogatepass") for begin, end in pairwise(places)]


def temporary_file() -> IO[bytes]:
    """A file without a name beside the cache, or where the system keeps such files (often in memory)."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=cache_dir())
    except OSError:
        return tempfile.TemporaryFile()
