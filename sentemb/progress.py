"""Progress of long work: a bar on a terminal, a plain line every ten seconds elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, TextIO

PLAIN_EVERY_S = 10.0


def is_quiet() -> bool:
    """Whether ``SENTEMB_QUIET`` (set by ``--quiet``) asks for no progress."""
    return os.environ.get("SENTEMB_QUIET", "") not in ("", "0")


class Progress:
    """``with Progress("encoding", total=1000, unit="texts") as bar: bar.advance(64, loss="0.31")``."""

    def __init__(
        self, title: str, *, total: int | None, unit: str, done: int = 0, enabled: bool | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self._stream = stream or sys.stderr
        self._enabled = (not is_quiet()) if enabled is None else enabled
        self._fields: dict[str, str] = {}
        self._bar: Any = None
        self._task: Any = None
        self._start = self._printed = time.monotonic()

    def __enter__(self) -> Progress:
        self._start = self._printed = time.monotonic()
        if self._enabled and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"),
                TimeRemainingColumn(), TextColumn("{task.fields[extra]}"),
                console=Console(file=self._stream), transient=False,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, count="", extra="")
        return self

    def advance(self, amount: int = 1, **fields: str) -> None:
        """``amount`` more units are done; ``fields`` are shown beside the bar until replaced."""
        self.done += amount
        self._fields.update(fields)
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, count=self._count(), extra=self._extra())
        elif time.monotonic() - self._printed >= PLAIN_EVERY_S:
            self._printed = time.monotonic()
            print(f"{self.title}: {self._count()}  {self._extra()}".rstrip(), file=self._stream, flush=True)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=self._stream, flush=True)

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _count(self) -> str:
        of = f"/{self.total:,}" if self.total is not None else ""
        left = ""
        if self.total is not None and self._bar is None and self.rate > 0:
            left = f", {(self.total - self.done) / self.rate:,.0f} s left"
        return f"{self.done:,}{of} {self.unit} ({self.rate:,.1f}/s{left})"

    def _extra(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in self._fields.items())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._enabled and time.monotonic() - self._start >= PLAIN_EVERY_S:
            print(f"{self.title}: {self._count()}  {self._extra()}".rstrip(), file=self._stream, flush=True)
