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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sentemb.errors import EvaluationError, PartError, did_you_mean
from sentemb.evaluate.task import Task
from sentemb.parts import room
from sentemb.resources import share_dir

_KEYS = ("title", "tasks", "averages")


@dataclass(frozen=True, kw_only=True)
class Average:
    """The mean of some tasks' main scores; ``tasks`` empty means all."""

    name: str
    tasks: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What to evaluate."""

    name: str
    title: str
    tasks: Sequence[Task]
    averages: Sequence[Average] = ()


def suite_names() -> list[str]:
    """The suites that come with sentemb."""
    return sorted(path.stem for path in share_dir("eval", "suites").glob("*.toml"))


def suite_titles() -> dict[str, str]:
    """What the suites that come with sentemb are, by name."""
    paths = {name: share_dir("eval", "suites") / f"{name}.toml" for name in suite_names()}
    return {name: str(tomllib.loads(path.read_text(encoding="utf-8"))["title"]) for name, path in paths.items()}


def load_suite(name: str | Path) -> Suite:
    """A suite by name or from a file; every fault of it at once.

    Raises:
        EvaluationError: no such suite, or faults in it.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = share_dir("eval", "suites") / f"{name}.toml"
        if not path.is_file():
            raise EvaluationError(
                f'no suite "{name}"{did_you_mean(str(name), suite_names())} (or the path of a .toml file)'
            )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EvaluationError(f"{path}: not TOML: {error}") from None
    faults = [f'"{key}"{did_you_mean(key, _KEYS)}' for key in data if key not in _KEYS]
    tasks = read_tasks(data.get("tasks"), where="tasks", faults=faults)
    averages = _averages(data.get("averages", []), faults)
    if faults:
        raise EvaluationError("\n".join(f"{path}: {fault}" for fault in faults))
    return Suite(name=path.stem, title=str(data.get("title", path.stem)), tasks=tasks, averages=averages)


def read_tasks(tables: Any, *, where: str, faults: list[str]) -> tuple[Task, ...]:
    """The tasks of an array of tables; what is wrong with them is added to ``faults``."""
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        faults.append(f"no [[{where}]] in it")
        return ()
    tasks = []
    for number, table in enumerate(tables):
        try:
            tasks.append(cast(Task, room("tasks").make(table)))
        except PartError as error:
            faults += error.located(f"{where}[{number}].")
    return tuple(tasks)


def _averages(tables: Any, faults: list[str]) -> tuple[Average, ...]:
    averages = []
    for number, table in enumerate(tables if isinstance(tables, list) else [tables]):
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            faults.append(f"averages[{number}] has no name")
        else:
            averages.append(Average(name=table["name"], tasks=tuple(table.get("tasks", ()))))
    return tuple(averages)
