"""The exception tree. Every message says where, what was found, what is allowed and what to do next.

    SentembError             exit code 2, one message, no traceback (``--debug`` shows it)
    ├── RecipeError ── PartError (a ValueError as well)
    ├── SearchError ── IndexLocked
    ├── DataError, ModelError, EvaluationError, CheckpointError, DeviceLost, NumericError, OutOfMemory
    ├── Interrupted          exit code 130
    └── MissingExtra         an ImportError as well
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Iterable, Sequence


class SentembError(Exception):
    """Base of every error that sentemb raises on purpose."""

    exit_code = 2


class RecipeError(SentembError):
    """Every fault of a recipe or of options at once."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class PartError(RecipeError, ValueError):
    """A part that does not exist, or whose settings are wrong; ``entries`` are (path of a setting, its fault)."""

    def __init__(self, subject: str, entries: Sequence[tuple[str, str]]) -> None:
        self.entries = tuple(entries)
        super().__init__(self.located(f"{subject}: " if subject else ""))

    def located(self, prefix: str) -> list[str]:
        """One line a fault behind the prefix, e.g. ``"x.toml: terms[0]."``."""
        whole = prefix.rstrip(". ")
        return [f"{prefix}{path} {problem}" if path else f"{whole} {problem}".strip() for path, problem in self.entries]


class DataError(SentembError):
    """An input file, column or row that cannot be used; names file and line."""


class ModelError(SentembError):
    """A checkpoint that cannot be opened, verified or used this way."""


class SearchError(SentembError):
    """An index that cannot be opened, changed or searched."""


class IndexLocked(SearchError):  # noqa: N818 - reads better where it is caught
    """Another process holds the index's write lock."""


class EvaluationError(SentembError):
    """A task, split or score that cannot be computed."""


class CheckpointError(SentembError):
    """A training checkpoint that is missing, damaged or belongs to another run."""


class DeviceLost(SentembError):  # noqa: N818 - reads better where it is caught
    """Another device of a run ended or does not answer."""


class NumericError(SentembError):
    """A loss or a vector that is not a finite number, an all-masked row; names part, step and example ids."""


class OutOfMemory(SentembError):  # noqa: N818 - as PyTorch calls it
    """Memory did not suffice, also for half of the work at a time; names the setting that lowers it."""


class Interrupted(SentembError):  # noqa: N818 - not a fault
    """The user stopped the work; says how to resume."""

    exit_code = 130


class MissingExtra(SentembError, ImportError):  # noqa: N818 - names what is missing
    """An optional dependency is not installed; names the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed; run: pip install "sentemb[{extra}]"')


def needs_extra(package: str, extra: str) -> None:
    """Raise ``MissingExtra`` without ``package``, e.g. "faiss", which ``extra`` installs, e.g. "search"."""
    if sys.modules.get(package) is None and importlib.util.find_spec(package) is None:
        raise MissingExtra(package, extra)


def first_line(error: BaseException | str) -> str:
    """The first line of another library's error, for use inside a message of ours; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """``"; known: a, b; did you mean a?"`` for the end of a message."""
    names = sorted(known)
    close = difflib.get_close_matches(found, names, n=1)
    return f"; known: {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")
