"""Suites of tasks as TOML files.

A suite (``eval/suites/NAME.toml`` or a path)::

    title = "The seven STS sets, SimCSE's protocol"

    [[tasks]]
    use = "sts"                          # a task of `sentemb list tasks`, or package.module:Class
    protocol = "simcse"
    sets = ["STS12", "STSBenchmark"]

    [[averages]]
    name = "sts-avg"
    tasks = ["STS12", "STSBenchmark"]    # all tasks of the suite if absent

Paths are looked for in the data folder and in the working folder.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from sentemb.errors import EvaluationError, PartError, did_you_mean
from sentemb.evaluate.task import Task
from sentemb.files import share_dir
from sentemb.parts import Part


@dataclass(frozen=True, kw_only=True)
class Average:
    """The mean of some tasks' main scores; ``tasks`` empty means all."""

    name: str
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite(Part):
    """What to evaluate; a file's tables are checked as parts are."""

    name: str
    title: str
    tasks: tuple[Task, ...]
    averages: tuple[Average, ...] = ()


def suite_names() -> list[str]:
    """The suites that come with sentemb."""
    return sorted(path.stem for path in share_dir("eval", "suites").glob("*.toml"))


def load_suite(name: str | Path) -> Suite:
    """A suite by name or from a file; every fault of it at once.

    Raises: EvaluationError: no such suite, or faults in it.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = share_dir("eval", "suites") / f"{name}.toml"
        if not path.is_file():
            hint = did_you_mean(str(name), suite_names())
            raise EvaluationError(f'no suite "{name}"{hint} (or the path of a .toml file)')
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return Suite(**{"title": path.stem, **data, "name": path.stem})
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EvaluationError(f"{path}: not TOML: {error}") from None
    except PartError as error:
        raise EvaluationError("\n".join(error.located(f"{path}: "))) from None
