"""Progress of long work: a bar on a terminal, one line that changes in a notebook, a plain line every ten seconds
elsewhere, nothing when quiet. What the library says beside it goes through Python's ``logging``."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

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
        _print(f"{kind}{record.getMessage()}")


class Progress:
    """``with Progress("encoding", total=1000, unit="texts") as bar: bar.advance(64, loss="0.31")``."""

    def __init__(self, title: str, *, total: int | None, unit: str, done: int = 0, enabled: bool = True) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self._enabled = enabled and not is_quiet()
        self._fields: dict[str, str] = {}
        self._screen: _Terminal | _Lines | None = None
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        if self._enabled:
            if sys.stderr.isatty():
                self._screen = _Terminal(self)
            elif _in_notebook():
                self._screen = _Lines(_changing_line(), NOTEBOOK_EVERY_S)
            else:
                self._screen = _Lines(_print, PLAIN_EVERY_S)
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.show(self, is_last=True)

    def advance(self, amount: int = 1, **fields: str) -> None:
        """``amount`` more units are done; ``fields`` are shown beside the bar until replaced."""
        self.done += amount
        self._fields.update(fields)
        if self._screen is not None:
            self._screen.show(self, is_last=False)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._screen is not None:
            _print(line)

    def count(self, *, with_time_left: bool) -> str:
        """``64/1,000 texts (32.0/s, 29 s left)``."""
        rate = (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)
        total = f"/{self.total:,}" if self.total is not None else ""
        left = ""
        if self.total is not None and with_time_left and rate > 0:
            left = f", {(self.total - self.done) / rate:,.0f} s left"
        return f"{self.done:,}{total} {self.unit} ({rate:,.1f}/s{left})"

    def fields(self) -> str:
        """``loss 0.31``."""
        return "  ".join(f"{name} {value}" for name, value in self._fields.items())


class _Terminal:
    """Rich's bar."""

    def __init__(self, progress: Progress) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(), TextColumn("{task.fields[extra]}"), console=Console(file=sys.stderr),
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


class _Lines:
    """A line every ``every_s`` seconds; none for shorter work."""

    def __init__(self, write: Callable[[str], None], every_s: float) -> None:
        self._write, self._every_s = write, every_s
        self._due, self._was_shown = time.monotonic() + every_s, False

    def show(self, progress: Progress, *, is_last: bool) -> None:
        now = time.monotonic()
        if now >= self._due or (is_last and self._was_shown):
            self._due, self._was_shown = now + self._every_s, True
            self._write(f"{progress.title}: {progress.count(with_time_left=True)}  {progress.fields()}".rstrip())


def _changing_line() -> Callable[[str], None]:
    """Writes one line of a notebook cell's output, which changes in place."""
    from IPython.display import display

    line: Any = display({"text/plain": ""}, raw=True, display_id=True)
    return lambda text: line.update({"text/plain": text}, raw=True)


def _print(line: str) -> None:
    stream = sys.stdout if _in_notebook() else sys.stderr
    stream.write(f"{line}\n")
    stream.flush()


def _in_notebook() -> bool:
    """Whether an IPython kernel runs this: Jupyter, VS Code, Colab; not IPython's own terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
