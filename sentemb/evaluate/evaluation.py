"""Scores a model on tasks: first everything that can be missing is looked for, then all texts are encoded, then task by
task is scored; a task that fails is reported and the others go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.errors import EvaluationError, SentembError, first_line, needs_extra
from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.opening import ModelOptions, open_model
from sentemb.evaluate.reports.results import Results, TaskFailure, TaskResult
from sentemb.evaluate.statistics.significance import Interval, interval_of_mean
from sentemb.evaluate.suites import Suite, load_suite
from sentemb.evaluate.task import EvalSetup, Task, texts_by_prompt
from sentemb.provenance import provenance
from sentemb.types import Embedder

logger = logging.getLogger(__name__)

AHEAD_TEXTS = 200_000  # distinct texts of several tasks that are encoded in one pass


def evaluate_model(
    model: str | Path | Embedder | EvalModel | Callable[[list[str]], Any],
    tasks: str | Path | Suite | Task | Sequence[Task],
    *,
    data_dir: str | Path | None = None,
    output: str | Path | None = None,
    precision: str = "auto",
    resamples: int = 1000,
    seed: int = 42,
    skip_missing: bool = False,
) -> Results:
    """Score a model.

    >>> from sentemb.evaluate import Sts, evaluate_model
    >>> evaluate_model("runs/simcse/model", Sts(path="pairs.csv")).tasks[0].main  # doctest: +SKIP
    >>> evaluate_model("BAAI/bge-small-en-v1.5", "sts", data_dir="data").averages  # doctest: +SKIP

    Args:
        model: a folder, hub id, ``package:NAME/FOLDER``, ``module:function`` or vectors on disk; an ``Encoder``, a
            SentenceTransformer, anything with ``encode(texts)``, or a function; or what ``open_model`` gave.
        tasks: a suite's name, a suite file (``.toml``), or one or several task values.
        data_dir: the data folder; by default ``SENTEMB_DATA``.
        output: a folder for mteb's results tree and TREC runs.
        precision: of a model that is opened here.
        resamples: of the bootstrap intervals; 0: none.
        seed: of draws, folds and resamples.
        skip_missing: score what there is data for.

    Raises:
        EvaluationError: data is missing; lists all of it, and nothing has run.
        ModelError: the model cannot be opened.
    """
    suite = load_suite(tasks) if isinstance(tasks, str | Path) else tasks
    if not isinstance(suite, Suite):
        chosen = (suite,) if isinstance(suite, Task) else tuple(suite)
        suite = Suite(name="tasks", title="chosen tasks", tasks=chosen)
    folder = Path(output) if output is not None else None
    setup = EvalSetup(data=DataFolder.find(data_dir), output=folder, resamples=resamples, seed=seed)
    plan = EvalPlan.of(suite, setup)
    refuse_missing([plan], skip_missing=skip_missing)
    opened = open_model(model, ModelOptions(precision=precision))
    return run_plan(opened, plan, setup)


@dataclass(frozen=True, kw_only=True)
class EvalPlan:
    """The tasks of a suite that are ready to run here, and what is missing for the others."""

    suite: Suite
    tasks: Sequence[Task]
    missing: Sequence[TaskFailure] = ()

    @classmethod
    def of(cls, suite: Suite, setup: EvalSetup) -> EvalPlan:
        """Look for all data of a suite; nothing is read or encoded."""
        ready: list[Task] = []
        missing: list[TaskFailure] = []
        for entry in suite.tasks:
            try:
                expanded = entry.expand(setup)
            except SentembError as error:
                missing.append(TaskFailure(task=entry.label, error=str(error)))
                continue
            for task in expanded:
                try:
                    for package in task.packages:
                        needs_extra(package, "eval")
                    faults = task.missing(setup)
                except SentembError as error:
                    faults = [str(error)]
                missing += [TaskFailure(task=task.label, error=fault) for fault in faults]
                ready += [] if faults else [task]
        return cls(suite=suite, tasks=ready, missing=missing)


def refuse_missing(plans: Sequence[EvalPlan], *, skip_missing: bool) -> None:
    """Before anything runs: an error that lists all that is missing, unless the rest shall run.

    Raises: EvaluationError: something is missing.
    """
    missing = list(dict.fromkeys(entry.error for plan in plans for entry in plan.missing))
    if missing and not skip_missing:
        raise EvaluationError(
            "missing, so nothing was run (--skip-missing runs the rest):\n" + "\n".join(f"  {line}" for line in missing)
        )


def run_plan(model: EvalModel, plan: EvalPlan, setup: EvalSetup) -> Results:
    """Score the model on every task that is ready."""
    facts, start, texts, seconds = provenance(), time.perf_counter(), model.texts, model.seconds
    results: list[TaskResult] = []
    failures = list(plan.missing)
    for number, (task, data) in enumerate(_loaded(model, plan.tasks, setup), start=1):
        task_start = time.perf_counter()
        progress = f"[{number}/{len(plan.tasks)}] {task.label}:"
        try:
            if isinstance(data, Exception):
                raise data
            result = task.run(data, model, setup)
        except Exception as error:  # of mteb, a task's own code or the model: one task must not lose the others
            message = str(error) if isinstance(error, SentembError) else f"{type(error).__name__}: {first_line(error)}"
            failures.append(TaskFailure(task=task.label, error=message))
            logger.info("%s failed", progress)
            continue
        took = time.perf_counter() - task_start
        results.append(replace(result, seconds=result.seconds or took))
        logger.info("%s %.2f in %.1f s", progress, result.main, took)
    means = averages(plan.suite, results)
    encoded, encoding = model.texts - texts, model.seconds - seconds
    return Results(
        model=model.identity, suite=plan.suite.name, tasks=results, failures=failures, seed=setup.seed,
        averages={name: mean for name, (mean, _) in means.items()},
        average_intervals={name: interval for name, (_, interval) in means.items() if interval is not None},
        provenance=facts, wall_s=time.perf_counter() - start, texts=encoded,
        texts_per_s=encoded / encoding if encoding > 0 else 0.0,
    )  # fmt: skip


def _loaded(model: EvalModel, tasks: Sequence[Task], setup: EvalSetup) -> Iterator[tuple[Task, Any]]:
    """Every task with its data (or why they cannot be read), and the model remembering the vectors of its texts.

    Tasks are loaded until they have ``AHEAD_TEXTS`` texts, which are encoded in one pass: longer sorted runs of
    lengths, and every text once.
    """
    group: list[tuple[Task, Any]] = []
    total = 0
    for task in tasks:
        try:
            data = task.load(setup)
            count = sum(len(column.texts) for column in task.texts(data))
        except Exception as error:
            yield task, error
            continue
        if group and total + count > AHEAD_TEXTS:
            yield from _encoded_ahead(model, group)
            group, total = [], 0
        group.append((task, data))
        total += count
    yield from _encoded_ahead(model, group)


def _encoded_ahead(model: EvalModel, group: list[tuple[Task, Any]]) -> Iterator[tuple[Task, Any]]:
    if len(group) > 1:  # a task alone, which may be larger than the model's memory, is encoded when it runs
        for prompt, texts in texts_by_prompt(model, group).items():
            try:
                model.encode(texts, prompt=prompt)
            except Exception:  # noqa: S112 - the text is met again, and blamed, in its own task
                continue
    yield from group


def averages(suite: Suite, tasks: Sequence[TaskResult]) -> dict[str, tuple[float, Interval | None]]:
    """Means of main scores; an average with a task missing is NaN, not a mean of the others. A mean has an interval
    where each of its tasks has one."""
    means: dict[str, tuple[float, Interval | None]] = {}
    by_name = {task.task: task for task in tasks}
    for average in suite.averages:
        names = list(average.tasks) or list(by_name)
        if not names or any(name not in by_name for name in names):
            means[average.name] = float("nan"), None
            continue
        mean = float(np.mean([by_name[name].main for name in names]))
        parts = [interval for name in names if (interval := by_name[name].interval) is not None]
        is_known = len(parts) == len(names) and not np.isnan(mean)
        means[average.name] = mean, interval_of_mean(mean, parts) if is_known else None
    return means
