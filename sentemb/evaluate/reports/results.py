"""The results of an evaluation: one JSON per model, complete enough to be compared and reproduced later.

``items`` holds, per task, what the score was computed from (a value a query or text; predictions and gold scores of
pairs), so that two results files can be tested against one another; ``fingerprint`` says that both saw the same data.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sentemb.errors import DataError
from sentemb.evaluate.model import ModelIdentity
from sentemb.evaluate.statistics.significance import Interval
from sentemb.files import write_json
from sentemb.provenance import Provenance

FORMAT = 3
_DIGITS = 7  # significant digits kept of an item: far below any score's second decimal


@dataclass(frozen=True, kw_only=True)
class Items:
    """What a main score was computed from: ``values`` (their mean), or ``statistic`` of ``predicted`` and ``gold``.

    With ``strata`` (subsets of a task) it is the mean of their scores.
    """

    fingerprint: str
    values: Sequence[float] = ()
    predicted: Sequence[float] = ()
    gold: Sequence[float] = ()
    strata: Sequence[int] = ()  # items of every subset, in order; empty: there is one
    statistic: str = "spearman"  # or "average precision" (gold 0 and 1)

    def __len__(self) -> int:
        return len(self.values) or len(self.gold)

    def rounded(self) -> Items:
        """With the digits that a results file keeps."""
        values, predicted, gold = (
            [float(f"{value:.{_DIGITS}g}") for value in one] for one in (self.values, self.predicted, self.gold)
        )
        return replace(self, values=values, predicted=predicted, gold=gold)


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One row of a report. Scores are ×100."""

    task: str
    kind: str  # sts, retrieval, classification, clustering, geometry, or mteb's task type
    protocol: str
    metric: str  # of ``main``
    main: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    interval: Interval | None = None
    items: Items | None = None
    engine: str = "sentemb"  # or mteb
    split: str = "test"
    count: int = 0  # pairs, queries or texts behind the score
    seconds: float = 0.0
    notes: str = ""
    baselines: Mapping[str, float] = field(default_factory=dict)  # other systems on the same task: name -> main score
    baseline_intervals: Mapping[str, Interval] = field(default_factory=dict)
    interval_note: str = ""  # what was resampled where it is not the items; where there is no interval, why

    @property
    def key(self) -> tuple[str, str, str]:
        """Rows of two results are the same task if these agree."""
        return (self.task, self.protocol, self.metric)


@dataclass(frozen=True, kw_only=True)
class TaskFailure:
    """A task without a score, and why."""

    task: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that one evaluation of one model gave."""

    model: ModelIdentity
    suite: str
    tasks: Sequence[TaskResult]
    failures: Sequence[TaskFailure] = ()
    averages: Mapping[str, float] = field(default_factory=dict)
    average_intervals: Mapping[str, Interval] = field(default_factory=dict)  # none where a task has none
    seed: int = 0
    provenance: Provenance = field(default_factory=Provenance)
    wall_s: float = 0.0
    texts: int = 0  # distinct texts encoded
    texts_per_s: float = 0.0


def fingerprint(*columns: Sequence[Any] | NDArray[Any]) -> str:
    """A short hash of the data of a task (ids or texts, gold scores), in order."""
    total = hashlib.sha256()
    for column in columns:
        for value in column:
            total.update(f"{value}\x1f".encode())
        total.update(b"\x1e")
    return total.hexdigest()[:16]


def write_results(path: Path, results: Results) -> None:
    """Write one results file, atomically. NaN becomes null: JSON has none."""
    write_json(path, {"format": FORMAT, **without_nan(asdict(results))})


def save_results(folder: Path, results: Results) -> Path:
    """Write ``<suite>--<model>.json`` into a folder; returns the file.

    Earlier results of the same model and suite are merged: tasks that were scored now replace theirs, the others stay.
    A file of another model (other weights under the same name) is never overwritten: the new one gets a number.
    """
    model = re.sub(r"[^A-Za-z0-9._-]+", "_", results.model.name).strip("_")
    stem = f"{results.suite}--{model}"
    path, number = folder / f"{stem}.json", 1
    while path.exists() and not _is_of(path, results.model):
        number += 1
        path = folder / f"{stem}-{number}.json"
    write_results(path, _merged(read_results(path), results) if path.exists() else results)
    return path


def _is_of(path: Path, model: ModelIdentity) -> bool:
    try:
        earlier = read_results(path).model
    except DataError:
        return False
    return earlier == replace(model, width=earlier.width)


def _merged(earlier: Results, now: Results) -> Results:
    keys, names = {task.key for task in now.tasks}, {task.task for task in now.tasks}
    known = names | {failure.task for failure in now.failures}
    return replace(
        now,
        tasks=[*(task for task in earlier.tasks if task.key not in keys), *now.tasks],
        failures=[*(failure for failure in earlier.failures if failure.task not in known), *now.failures],
        averages={**earlier.averages, **now.averages},
        average_intervals={
            **{name: one for name, one in earlier.average_intervals.items() if name not in now.averages},
            **now.average_intervals,
        },
    )


def read_results(path: Path) -> Results:
    """A results file.

    Raises: DataError: missing, damaged, or of a newer format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a readable results file: {error}") from None
    if not isinstance(data, dict) or "tasks" not in data or "model" not in data:
        raise DataError(f"{path}: not a results file of sentemb eval")
    if data.pop("format", None) != FORMAT:
        raise DataError(f"{path}: of another format than {FORMAT}; evaluate again with this version")
    try:
        tasks = [_task(row) for row in data.pop("tasks")]
        failures = [TaskFailure(**row) for row in data.pop("failures")]
        return Results(
            model=ModelIdentity(**data.pop("model")), tasks=tasks, failures=failures,
            average_intervals=_intervals(data.pop("average_intervals", {})),
            provenance=Provenance(**data.pop("provenance", {})), **data,
        )  # fmt: skip
    except (TypeError, AttributeError, KeyError) as error:
        raise DataError(f"{path}: damaged: {error}") from None


def _task(row: dict[str, Any]) -> TaskResult:
    interval, items = row.pop("interval"), row.pop("items")
    main, baseline_intervals = row.pop("main"), _intervals(row.pop("baseline_intervals", {}))
    return TaskResult(
        **row, baseline_intervals=baseline_intervals, main=math.nan if main is None else main,
        interval=_intervals({"": interval}).get(""), items=None if items is None else Items(**items),
    )  # fmt: skip


def _intervals(rows: Mapping[str, Any]) -> dict[str, Interval]:
    return {name: Interval(**row) for name, row in rows.items() if row is not None and row["low"] is not None}


def without_nan(value: Any) -> Any:
    """NaN and infinities become None: JSON has neither."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
