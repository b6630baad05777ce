"""Bytes of a file, of standard input, and of what gzip and Zstandard made of a file."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

from sentemb.errors import needs_extra

COMPRESSIONS = (".gz", ".zst")
_CHUNK = 1 << 20


def open_bytes(path: Path | None) -> BinaryIO:
    """The decompressed bytes of a file (by its suffix), or of standard input (None)."""
    if path is None:
        return sys.stdin.buffer
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return cast(BinaryIO, io.BufferedReader(_Zstandard(path.open("rb")), _CHUNK))
    return path.open("rb", buffering=_CHUNK)


class _Zstandard(io.RawIOBase):
    """Decompressed bytes of any number of Zstandard frames.

    ``zstandard.stream_reader`` takes a file that ends inside a frame for a whole one; this raises EOFError.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None
        self._input = b""
        self._output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._file.read(_CHUNK)
                if not self._input:
                    if self._frame is not None:
                        raise EOFError("it ends inside a Zstandard frame")
                    return 0
            self._output = self._decompress()
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def _decompress(self) -> bytes:
        needs_extra("zstandard", "data")
        import zstandard

        if self._frame is None:
            # 2 GiB windows: what `zstd --ultra --long=31` may write
            self._frame = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
        try:
            output: bytes = self._frame.decompress(self._input)
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        self._input = b""
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None
        return output

    def close(self) -> None:
        self._file.close()
        super().close()
