"""Faulty rows, collected so that a user sees the first ten of a file at once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from sentemb.errors import DataError

SHOWN = 10


class Faults:
    """Collects faulty rows; ``raise_if_any`` reports the first ``SHOWN`` of them with their number in all."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[tuple[str, int, str]] = []  # (file, line, message)

    def add(self, file: str, line: int, what: str, *, has_lines: bool = True) -> None:
        """A fault of one row; ``what`` says what was found and what is allowed."""
        self.count += 1
        self._first.append((file, line, f"{file}:{line}: {what}" if has_lines else f"{file}: row {line}: {what}"))
        # a block's undecodable rows are told before its empty ones, so the first to come are not the first of the file
        if len(self._first) > 100 * SHOWN:
            self._first = sorted(self._first)[:SHOWN]

    def raise_if_any(self, advice: str) -> None:
        """Raises: DataError with the collected faults, and ``advice`` on what to do next."""
        if self.count:
            lines = [message for _, _, message in sorted(self._first)[:SHOWN]]
            more = [f"… and {self.count - SHOWN:,} more faulty rows"] if self.count > SHOWN else []
            raise DataError("\n".join([*lines, *more, advice]))


@contextmanager
def damage_named(name: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what decompressors raise on a damaged file, and ``kinds``, into a ``DataError`` that names the file."""
    damage: tuple[type[Exception], ...] = (EOFError, zlib.error, OSError, *kinds)
    try:
        yield
    except damage as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip.BadGzipFile, and pyarrow's own, carry none
            raise
        raise DataError(f"{name}: the file is damaged or not of this format: {error}") from error
