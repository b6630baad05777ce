"""Progress of long work: a bar on a terminal, one line that changes in a notebook, a plain line every ten seconds
elsewhere, nothing when quiet. What the library says beside it goes through Python's ``logging``."""

from __future__ import annotations

import logging
import os
import sys
import time
from types import TracebackType
from typing import Any, Protocol, TextIO

PLAIN_EVERY_S = 10.0
NOTEBOOK_EVERY_S = 0.2


def is_quiet() -> bool:
    """Whether ``SENTEMB_QUIET`` (set by ``--quiet``) asks for no progress."""
    return os.environ.get("SENTEMB_QUIET", "") not in ("", "0")


def show_log() -> None:
    """Print sentemb's log on standard error: what the command line does; a program configures ``logging`` itself.

    Information is left out when quiet. Of several processes that train together, the first one speaks.
    """
    logger = logging.getLogger("sentemb")
    if not any(isinstance(handler, _LogHandler) for handler in logger.handlers):
        logger.addHandler(_LogHandler())
    is_first = os.environ.get("RANK", "0") == "0"
    logger.setLevel(logging.ERROR if not is_first else logging.WARNING if is_quiet() else logging.INFO)


class _LogHandler(logging.Handler):
    """Plain lines; a warning says that it is one. Rich puts what is written to ``sys.stderr`` above its bars."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = f"sentemb: {record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        sys.stderr.write(f"{kind}{record.getMessage()}\n")
        sys.stderr.flush()


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
        self._screen: _Screen | None = None
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        if not self._enabled:
            return self
        if self._stream.isatty():
            self._screen = _Terminal(self, self._stream)
        elif self._stream is sys.stderr and _in_notebook():
            self._screen = _Notebook()
        else:
            self._screen = _Plain(self._stream)
        return self

    def advance(self, amount: int = 1, **fields: str) -> None:
        """``amount`` more units are done; ``fields`` are shown beside the bar until replaced."""
        self.done += amount
        self._fields.update(fields)
        if self._screen is not None:
            self._screen.show(self, is_last=False)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._screen is not None:
            self._screen.say(line)

    @property
    def is_drawn(self) -> bool:
        """Whether the fields are always in sight: on a terminal and in a notebook."""
        return isinstance(self._screen, _Terminal | _Notebook)

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self._first) / max(self.seconds, 1e-9)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def count(self, *, with_time_left: bool) -> str:
        """``64/1,000 texts (32.0/s, 29 s left)``."""
        total = f"/{self.total:,}" if self.total is not None else ""
        left = ""
        if self.total is not None and with_time_left and self.rate > 0:
            left = f", {(self.total - self.done) / self.rate:,.0f} s left"
        return f"{self.done:,}{total} {self.unit} ({self.rate:,.1f}/s{left})"

    def fields(self) -> str:
        """``loss 0.31``."""
        return "  ".join(f"{name} {value}" for name, value in self._fields.items())

    def line(self) -> str:
        """All of it in one line."""
        return f"{self.title}: {self.count(with_time_left=True)}  {self.fields()}".rstrip()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._screen is not None:
            self._screen.show(self, is_last=True)


class _Screen(Protocol):
    def show(self, progress: Progress, *, is_last: bool) -> None: ...

    def say(self, line: str) -> None: ...


class _Terminal:
    """Rich's bar."""

    def __init__(self, progress: Progress, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(), TextColumn("{task.fields[extra]}"), console=Console(file=stream), transient=False,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            progress.title, total=progress.total, completed=progress.done, count="", extra=""
        )

    def show(self, progress: Progress, *, is_last: bool) -> None:
        count, extra = progress.count(with_time_left=False), progress.fields()
        self._bar.update(self._task, completed=progress.done, count=count, extra=extra)
        if is_last:
            self._bar.stop()

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False)


class _Notebook:
    """One line of a cell's output, which changes in place."""

    def __init__(self) -> None:
        from IPython.display import display

        self._line: Any = display({"text/plain": ""}, raw=True, display_id=True)
        self._shown = 0.0

    def show(self, progress: Progress, *, is_last: bool) -> None:
        if is_last or time.monotonic() - self._shown >= NOTEBOOK_EVERY_S:
            self._shown = time.monotonic()
            self._line.update({"text/plain": progress.line()}, raw=True)

    def say(self, line: str) -> None:
        sys.stdout.write(line + "\n")


class _Plain:
    """A line every ten seconds, for logs; none for shorter work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start = self._shown = time.monotonic()

    def show(self, progress: Progress, *, is_last: bool) -> None:
        if time.monotonic() - (self._start if is_last else self._shown) >= PLAIN_EVERY_S:
            self._shown = time.monotonic()
            self.say(progress.line())

    def say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _in_notebook() -> bool:
    """Whether an IPython kernel runs this: Jupyter, VS Code, Colab; not IPython's own terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
