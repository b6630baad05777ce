"""Suites of tasks as TOML files, and published scores.

A suite (``eval/suites/NAME.toml`` or a path)::

    title = "The seven STS sets, SimCSE's protocol"

    [[tasks]]
    kind = "sts"
    protocol = "simcse"
    sets = ["STS12", "STSBenchmark"]     # all seven if absent

    [[averages]]
    name = "sts-avg"
    tasks = ["STS12", "STSBenchmark"]    # all tasks of the suite if absent

Kinds: ``sts`` (protocol, sets, split, aggregation), ``pairs`` (path, name), ``retrieval`` (path, name, split, metric,
ignore_identical_ids), ``transfer`` (path, name, method), ``geometry`` (path), ``mteb`` (tasks, benchmark, subsets).
Paths are relative to the data folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentemb.errors import DataError, EvaluationError, did_you_mean
from sentemb.evaluate.ranking import CUTS
from sentemb.evaluate.sts import AGGREGATIONS, PROTOCOLS
from sentemb.evaluate.tables import number_of, read_rows, text_of
from sentemb.evaluate.transfer import METHODS
from sentemb.resources import share_dir


@dataclass(frozen=True)
class Job:
    """One entry of a suite."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Average:
    """The mean of some tasks' main scores; ``tasks`` empty means all."""

    name: str
    tasks: Sequence[str] = ()


@dataclass(frozen=True)
class Suite:
    """What to evaluate."""

    name: str
    title: str
    jobs: Sequence[Job]
    averages: Sequence[Average] = ()


# option -> its type, of every kind; True marks what must be given
_OPTIONS: dict[str, dict[str, tuple[type, bool]]] = {
    "sts": {"protocol": (str, True), "sets": (list, False), "split": (str, False), "aggregation": (str, False)},
    "pairs": {"path": (str, True), "name": (str, False), "aggregation": (str, False)},
    "retrieval": {
        "path": (str, True),
        "name": (str, False),
        "split": (str, False),
        "baselines": (bool, False),
        "ignore_identical_ids": (bool, False),
        "metric": (str, False),
    },
    "transfer": {"path": (str, True), "name": (str, False), "method": (str, True)},
    "geometry": {"path": (str, True)},
    "mteb": {"tasks": (list, False), "benchmark": (str, False), "subsets": (list, False)},
}
_ALLOWED: dict[str, tuple[str, ...]] = {
    "protocol": PROTOCOLS,
    "aggregation": AGGREGATIONS,
    "method": METHODS,
    "split": (),
    "metric": tuple(f"{name}@{k}" for name in ("ndcg", "map", "mrr", "recall", "precision", "hit_rate") for k in CUTS),
}


def suite_names() -> list[str]:
    """The suites that come with sentemb."""
    return sorted(path.stem for path in share_dir("eval", "suites").glob("*.toml"))


def load_suite(name: str | Path) -> Suite:
    """A suite by name or from a file; every fault of it at once.

    Raises:
        EvaluationError: No such suite, or faults in it.
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
    faults = [f"{path}: {fault}" for fault in _faults(data)]
    if faults:
        raise EvaluationError("\n".join(faults))
    jobs = [
        Job(entry["kind"], {key: value for key, value in entry.items() if key != "kind"}) for entry in data["tasks"]
    ]
    averages = [Average(entry["name"], tuple(entry.get("tasks", ()))) for entry in data.get("averages", [])]
    return Suite(path.stem, str(data.get("title", path.stem)), jobs, averages)


def _faults(data: Mapping[str, Any]) -> list[str]:
    faults = [
        f'"{key}"{did_you_mean(key, ("title", "tasks", "averages"))}'
        for key in data
        if key not in ("title", "tasks", "averages")
    ]
    entries = data.get("tasks")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        return [*faults, "no [[tasks]] in it"]
    for number, entry in enumerate(entries):
        faults += [f"tasks[{number}]{fault}" for fault in _entry_faults(entry)]
    for number, entry in enumerate(data.get("averages", [])):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            faults.append(f"averages[{number}] has no name")
    return faults


def _entry_faults(entry: Mapping[str, Any]) -> list[str]:
    kind = entry.get("kind")
    if kind not in _OPTIONS:
        return [f'.kind = "{kind}"{did_you_mean(str(kind), _OPTIONS)}']
    options = _OPTIONS[kind]
    faults = [
        f".{key}: unknown for kind {kind}{did_you_mean(key, options)}" for key in entry if key not in (*options, "kind")
    ]
    for key, (wanted, is_needed) in options.items():
        if key not in entry:
            if is_needed:
                faults.append(f".{key} is missing")
            continue
        value = entry[key]
        if not isinstance(value, wanted):
            faults.append(f".{key} = {value!r}; a {wanted.__name__} is needed")
        elif _ALLOWED.get(key) and value not in _ALLOWED[key]:
            faults.append(f'.{key} = "{value}"{did_you_mean(str(value), _ALLOWED[key])}')
    if kind == "mteb" and not entry.get("tasks") and not entry.get("benchmark"):
        faults.append(": tasks or benchmark is needed")
    return faults


@dataclass(frozen=True)
class Published:
    """A score that somebody published, ×100."""

    model: str
    task: str
    protocol: str
    score: float
    source: str


def published_scores(model: str, folder: Path | None = None) -> list[Published]:
    """Published scores of a model, matched by its name with or without organisation, case ignored.

    Files ``eval/published/*.csv`` with the columns model, task, protocol, score, source.

    Raises:
        DataError: A malformed file.
    """
    wanted = _base_name(model)
    found = []
    place = folder or share_dir("eval", "published")
    for path in sorted(place.glob("*.csv")):
        for row in read_rows(path):
            if _base_name(text_of(row, "model")) == wanted:
                found.append(
                    Published(
                        text_of(row, "model"),
                        text_of(row, "task"),
                        text_of(row, "protocol"),
                        number_of(row, "score"),
                        str(row.fields.get("source", path.stem)),
                    )
                )
    return found


def published_models(folder: Path | None = None) -> list[str]:
    """Models that ``eval/published`` knows."""
    place = folder or share_dir("eval", "published")
    return sorted({text_of(row, "model") for path in place.glob("*.csv") for row in read_rows(path)})


def _base_name(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1].lower()


def required(path: Path, what: str) -> Path:
    """``path`` if something is there.

    Raises:
        DataError: Nothing is.
    """
    if not path.exists():
        raise DataError(f"{path}: no such {what}")
    return path
