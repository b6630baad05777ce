"""What passes from planning to running: the settings of a run, its tasks, what is missing for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sentemb.errors import EvaluationError, did_you_mean
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.results import Items, TaskFailure, TaskResult
from sentemb.evaluate.significance import Interval, bootstrap_mean, bootstrap_pairs, in_points
from sentemb.evaluate.sts import data_root

OVERWRITE = ("only-missing", "always", "never", "only-cache")  # mteb's names


@dataclass(frozen=True)
class Settings:
    """Where the data lies, what is written, how much is resampled."""

    data_dir: Path | None = None
    results_dir: Path | None = None  # of mteb's JSON tree and TREC runs
    resamples: int = 1000
    seed: int = 42
    overwrite: str = OVERWRITE[0]
    baselines: bool = True
    index: str | None = None  # kind of FAISS index for mteb's retrieval; None: exact search
    skip_missing: bool = False

    def __post_init__(self) -> None:
        if self.overwrite not in OVERWRITE:
            raise EvaluationError(f'overwrite = "{self.overwrite}"{did_you_mean(self.overwrite, OVERWRITE)}')

    def place(self, path: str) -> Path:
        """A path of a suite: as it is, or under the data folder (or its ``hub``)."""
        given = Path(path).expanduser()
        if given.is_absolute() or given.exists():
            return given
        try:
            root = data_root(self.data_dir)
        except EvaluationError:
            return given
        return next((place for place in (root / given, root / "hub" / given) if place.exists()), root / given)

    def interval(self, items: Items) -> tuple[Interval | None, str]:
        """The bootstrap interval ×100 of what items give; where there is none, a note that says why."""
        if len(items) < 2:
            return None, "no interval: a single item"
        if len(items.gold):
            pairs = np.asarray(items.predicted), np.asarray(items.gold)
            found = bootstrap_pairs(*pairs, statistic=items.statistic, strata=items.parts(),
                                    resamples=self.resamples, seed=self.seed)
        else:
            values = np.asarray(items.values)
            found = bootstrap_mean(values, strata=items.parts(), resamples=self.resamples, seed=self.seed)
        if np.isnan(found.low):
            return None, "no interval: no resample has a score (too few items, or all but one alike)"
        return in_points(found), ""


@dataclass(frozen=True)
class Work:
    """One task, ready to run. ``texts`` may be encoded ahead, together with those of other tasks."""

    name: str
    run: Callable[[EvalModel], list[TaskResult]]
    texts: Callable[[], Sequence[str]] | None = None
    task_type: str = ""


@dataclass
class Plan:
    """The work of a suite, and what is missing for it."""

    work: list[Work] = field(default_factory=list)
    missing: list[TaskFailure] = field(default_factory=list)
