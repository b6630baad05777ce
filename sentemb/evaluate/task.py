"""What an evaluation task is.

One file adds one, here or in any package (``use = "my_package.my_module:Class"``); ``tasks/clustering.py`` is short.
The same class is ``[[tasks]]`` of a suite, ``[[dev]]`` of a recipe and ``--task`` of ``sentemb eval``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import stem_of
from sentemb.evaluate.results import Items, TaskResult
from sentemb.evaluate.significance import Interval, Values, bootstrap
from sentemb.parts import Part
from sentemb.types import Vectors


@dataclass(frozen=True, kw_only=True)
class EvalSetup:
    """What all tasks of an evaluation share: where data lie, what is written, how much is resampled."""

    data: DataFolder = field(default_factory=DataFolder)
    output: Path | None = None  # for mteb's results tree and TREC runs
    resamples: int = 1000  # of the bootstrap; 0: no intervals
    seed: int = 42  # of draws, folds and resamples

    def interval(self, items: Items) -> tuple[Interval | None, str]:
        """The bootstrap interval ×100 of what items give; where there is none, a note that says why."""
        if not self.resamples:
            return None, ""
        if len(items) < 2:
            return None, "no interval: a single item"
        interval = bootstrap(*items.columns, **items.score_options, resamples=self.resamples, seed=self.seed)
        if np.isnan(interval.low):
            return None, "no interval: no resample has a score (too few items, or all but one alike)"
        return interval.in_points(), ""

    def interval_of_runs(self, scores: Values, strata: Sequence[int] = ()) -> Interval | None:
        """The bootstrap interval ×100 of the mean of an experiment's repetitions."""
        if not self.resamples or len(scores) < 2:
            return None
        return bootstrap(scores, strata=strata, resamples=self.resamples, seed=self.seed).in_points()


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts of a task that are encoded with one prompt."""

    texts: Sequence[str]
    role: str | None = None  # query or document, where the task has both


@dataclass(frozen=True, kw_only=True)
class Task(Part, room="tasks"):
    """One score of a model on one set of data. Light to make; data are read by ``load``, once.

    An evaluation calls ``expand``, then ``missing`` of every task before any of them runs, then ``load``, ``texts``
    and ``run``. It encodes the texts of all tasks in one pass, every distinct text once, so ``run`` asks the model
    for vectors that are already there. A score must depend on the settings, the data and the model alone.

    Args:
        name: what reports call the task; by default the stem of its path.
    """

    task_type: ClassVar[str] = "Task"  # STS, Retrieval, Classification, …: in reports, and to choose a prompt
    higher_is_better: ClassVar[bool] = True  # whether the score can choose a checkpoint
    packages: ClassVar[tuple[str, ...]] = ()  # of the extra "eval", by the names they are imported by

    name: str = ""

    @property
    def label(self) -> str:
        """What reports call the task."""
        return self.name or stem_of(Path(str(self.settings.get("path") or ""))) or type(self).__name__

    def expand(self, setup: EvalSetup) -> Sequence[Task]:
        """The tasks that this one stands for, one score each: the sets of a protocol, a benchmark's tasks."""
        return (self,)

    def missing(self, setup: EvalSetup) -> list[str]:
        """What is lacking for this task on this machine, a message each. A SentembError is one, too."""
        path = self.settings.get("path")
        if isinstance(path, str) and path:
            setup.data.path(path)
        return []

    def load(self, setup: EvalSetup) -> Any:
        """The data, in whatever form ``texts`` and ``run`` take.

        Raises: DataError: a malformed file; names file and line.
        """
        return None

    def texts(self, data: Any) -> Sequence[Texts]:
        """What ``run`` will ask the model for. A task without them is encoded when it runs."""
        return ()

    def run(self, data: Any, model: EvalModel, setup: EvalSetup) -> TaskResult:
        """The score, with the items that it was computed from.

        Raises: EvaluationError, NumericError: there is no score; says why.
        """
        raise NotImplementedError

    def encode(self, model: EvalModel, texts: Sequence[str], role: str | None = None) -> Vectors:
        """Vectors of the texts, (texts, d), with the prompt that the model has for this task."""
        return model.encode(texts, prompt=model.prompt(task=self.label, task_type=self.task_type, role=role))

    def result(
        self, setup: EvalSetup, *, metric: str, main: float | None = None, metrics: Mapping[str, float] | None = None,
        protocol: str = "file", items: Items | None = None, count: int | None = None, split: str = "",
        interval: Interval | None = None, interval_note: str = "",
    ) -> TaskResult:  # fmt: skip
        """A row of the report, with the interval of its items.

        Args:
            main: the score, ×100; by default ``metrics[metric]``.
            protocol: what the score may be compared with: rows of two reports are the same task if task, protocol and
                metric agree.
            items: what ``main`` was computed from.
            count: pairs, queries or texts behind the score; by default the items.
            interval: ×100, where there are no items.
            interval_note: what was resampled instead of items, or why there is no interval.
        """
        if items is not None:
            interval, interval_note = setup.interval(items)
        score = float(main) if main is not None else (metrics or {})[metric]
        if count is None:
            count = len(items) if items is not None else 0
        return TaskResult(
            task=self.label, kind=self.task_type, protocol=protocol, metric=metric, main=score, count=count,
            metrics=metrics or {metric: score}, split=split, interval=interval, interval_note=interval_note,
            items=items and items.rounded(),
        )  # fmt: skip
