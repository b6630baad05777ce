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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import to_json

from sentemb.errors import DataError
from sentemb.evaluate.model import ModelIdentity
from sentemb.evaluate.significance import Interval, Values
from sentemb.files import write_text
from sentemb.provenance import Provenance

if TYPE_CHECKING:
    from sentemb.pages import Chart

FORMAT = 3
# JSON has no NaN: files have null
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
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

    @property
    def columns(self) -> list[Values]:
        """``values``, or ``predicted`` and ``gold``."""
        return [np.asarray(one, dtype=np.float64) for one in (self.values, self.predicted, self.gold) if len(one)]

    @property
    def score_options(self) -> dict[str, Any]:
        """How ``significance`` scores the columns."""
        return {"statistic": self.statistic if len(self.gold) else "mean", "strata": list(self.strata)}

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
    kind: str  # STS, Retrieval, Classification, …
    protocol: str
    metric: str  # of ``main``
    main: Number
    metrics: Mapping[str, Number] = field(default_factory=dict)
    interval: Interval | None = None
    items: Items | None = None
    engine: str = "sentemb"  # or mteb
    split: str = "test"
    count: int = 0  # pairs, queries or texts behind the score
    seconds: float = 0.0
    notes: str = ""
    baselines: Mapping[str, Number] = field(default_factory=dict)  # other systems on the same task: name -> main score
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

    format: int = FORMAT  # of the file
    model: ModelIdentity
    suite: str
    tasks: Sequence[TaskResult]
    failures: Sequence[TaskFailure] = ()
    averages: Mapping[str, Number] = field(default_factory=dict)
    average_intervals: Mapping[str, Interval] = field(default_factory=dict)  # none where a task has none
    seed: int = 0
    provenance: Provenance = field(default_factory=Provenance)
    wall_s: float = 0.0
    texts: int = 0  # distinct texts encoded
    texts_per_s: float = 0.0
    cut: int = 0  # of the texts that were encoded: longer than the model reads

    def plot(self, *others: Results) -> Chart:
        """Scores with their intervals, those of other models beside them; a notebook shows it."""
        from sentemb.evaluate.result_pages import named, score_chart

        return score_chart(named([[results] for results in (self, *others)]))

    def _repr_html_(self) -> str:
        from sentemb.evaluate.result_pages import results_in_cell

        return results_in_cell(self)


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
    write_text(path, to_json(results, inf_nan_mode="null", indent=2).decode() + "\n")


def save_results(folder: Path, results: Results) -> Path:
    """Write ``<suite>--<model>.json`` into a folder; returns the file.

    Earlier results of the same model and suite are merged: tasks that were scored now replace theirs, the others stay.
    A file of another model (other weights under the same name) is never overwritten: the new one gets a number.
    """
    stem = f"{results.suite}--{re.sub(r'[^A-Za-z0-9._-]+', '_', results.model.name).strip('_')}"
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        try:
            earlier = read_results(path)
        except DataError:
            earlier = None
        if earlier and earlier.model == replace(results.model, width=earlier.model.width):
            results = _merged(earlier, results)
            break
        number += 1
        path = folder / f"{stem}-{number}.json"
    write_results(path, results)
    return path


def _merged(earlier: Results, now: Results) -> Results:
    keys = {task.key for task in now.tasks}
    known = {task.task for task in now.tasks} | {failure.task for failure in now.failures}
    intervals = {name: one for name, one in earlier.average_intervals.items() if name not in now.averages}
    return replace(
        now,
        tasks=[*(task for task in earlier.tasks if task.key not in keys), *now.tasks],
        failures=[*(failure for failure in earlier.failures if failure.task not in known), *now.failures],
        averages={**earlier.averages, **now.averages},
        average_intervals={**intervals, **now.average_intervals},
    )


def read_results(path: Path) -> Results:
    """A results file.

    Raises: DataError: missing, damaged, or of another format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a readable results file: {error}") from None
    if not isinstance(data, dict) or "tasks" not in data or "model" not in data:
        raise DataError(f"{path}: not a results file of sentemb eval")
    if data.get("format") != FORMAT:
        raise DataError(f"{path}: of another format than {FORMAT}; evaluate again with this version")
    try:
        return TypeAdapter(Results).validate_python(data)
    except ValidationError as error:
        raise DataError(f"{path}: damaged: {error}") from None
