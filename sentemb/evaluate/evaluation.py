"""Scores a model on tasks: first everything that can be missing is looked for, then all texts are encoded, then task by
task is scored; a task that fails is reported and the others go on."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.errors import EvaluationError, SentembError, first_line, needs_extra
from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.opening import ModelOptions, of_encoder, open_model
from sentemb.evaluate.results import Results, TaskFailure, TaskResult
from sentemb.evaluate.significance import Interval, interval_of_mean
from sentemb.evaluate.suites import Suite, load_suite
from sentemb.evaluate.task import EvalSetup, Task
from sentemb.provenance import provenance
from sentemb.types import DevScores, Embedder

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
    (plan,) = plans_of([suite], setup, skip_missing=skip_missing)
    return run_plan(open_model(model, ModelOptions(precision=precision)), plan, setup)


@dataclass(frozen=True, kw_only=True)
class EvalPlan:
    """The tasks of a suite that are ready to run here, and what is missing for the others."""

    suite: Suite
    tasks: Sequence[Task]
    missing: Sequence[TaskFailure] = ()


def plans_of(suites: Sequence[Suite], setup: EvalSetup, *, skip_missing: bool) -> list[EvalPlan]:
    """Look for all data of the suites before anything is encoded.

    Raises: EvaluationError: something is missing, and the rest shall not run; lists all of it.
    """
    plans = [_plan(suite, setup) for suite in suites]
    missing = dict.fromkeys(entry.error for plan in plans for entry in plan.missing)
    if missing and not skip_missing:
        raise EvaluationError(
            "missing, so nothing was run (--skip-missing runs the rest):\n" + "\n".join(f"  {line}" for line in missing)
        )
    return plans


def _plan(suite: Suite, setup: EvalSetup) -> EvalPlan:
    ready: list[Task] = []
    missing: list[TaskFailure] = []
    for entry in suite.tasks:
        try:
            tasks = entry.expand(setup)
        except SentembError as error:
            missing.append(TaskFailure(task=entry.label, error=str(error)))
            continue
        for task in tasks:
            try:
                for package in task.packages:
                    needs_extra(package, "eval")
                faults = task.missing(setup)
            except SentembError as error:
                faults = [str(error)]
            missing += [TaskFailure(task=task.label, error=fault) for fault in faults]
            ready += [] if faults else [task]
    return EvalPlan(suite=suite, tasks=ready, missing=missing)


def run_plan(model: EvalModel, plan: EvalPlan, setup: EvalSetup) -> Results:
    """Score the model on every task that is ready."""
    facts, start, texts, seconds = provenance(), time.perf_counter(), model.texts, model.seconds
    cut = model.cut_count()
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
    means, intervals = averages(plan.suite, results)
    encoded, encoding = model.texts - texts, model.seconds - seconds
    return Results(
        model=model.identity, suite=plan.suite.name, tasks=results, failures=failures, seed=setup.seed, averages=means,
        average_intervals=intervals, provenance=facts, wall_s=time.perf_counter() - start, texts=encoded,
        texts_per_s=encoded / encoding if encoding > 0 else 0.0, cut=model.cut_count() - cut,
    )  # fmt: skip


def _loaded(model: EvalModel, tasks: Sequence[Task], setup: EvalSetup) -> Iterator[tuple[Task, Any]]:
    """Every task with its data (or why they cannot be read), its texts encoded with those of its neighbours."""
    group: list[tuple[Task, Any]] = []
    total = 0
    for task in tasks:
        try:
            data = task.load(setup)
            count = sum(len(column.texts) for column in task.texts(data))
        except Exception as error:
            data, count = error, 0
        if total + count > AHEAD_TEXTS:
            encode_ahead(model, group)
            yield from group
            group, total = [], 0
        group.append((task, data))
        total += count
    encode_ahead(model, group)
    yield from group


def encode_ahead(model: EvalModel, loaded: Sequence[tuple[Task, Any]]) -> None:
    """Let the model remember the vectors of several tasks' texts: one pass has longer sorted runs of lengths, and
    every text once a prompt. A task alone, which may be larger than the model's memory, is encoded when it runs."""
    texts: dict[str | None, dict[str, None]] = {}
    for task, data in loaded if len(loaded) > 1 else ():
        for column in () if isinstance(data, Exception) else task.texts(data):
            prompt = model.prompt(task=task.label, task_type=task.task_type, role=column.role)
            texts.setdefault(prompt, {}).update(dict.fromkeys(column.texts))
    for prompt, distinct in texts.items():
        with contextlib.suppress(Exception):  # the text is met again, and blamed, in its own task
            model.encode(list(distinct), prompt=prompt)


def averages(suite: Suite, tasks: Sequence[TaskResult]) -> tuple[dict[str, float], dict[str, Interval]]:
    """Means of main scores; an average with a task missing is NaN, not a mean of the others. A mean has an interval
    where each of its tasks has one."""
    means: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    by_name = {task.task: task for task in tasks}
    for average in suite.averages:
        chosen = [by_name.get(name) for name in average.tasks or by_name]
        scored = [task for task in chosen if task is not None]
        is_whole = 0 < len(scored) == len(chosen)
        mean = means[average.name] = float(np.mean([task.main for task in scored])) if is_whole else math.nan
        parts = [task.interval for task in scored if task.interval is not None]
        if len(parts) == len(chosen) and not math.isnan(mean):
            intervals[average.name] = interval_of_mean(mean, parts)
    return means, intervals


# ---------------------------------------------------------------------------------- while training: [[dev]]
def check_dev(tasks: Sequence[Task], *, data_dir: str | Path | None = None, seed: int = 42) -> list[str]:
    """What is wrong with dev tasks or lacking for them, a message each."""
    faults = [
        f"{task.label}: a {task.task_type} score is a description; it cannot choose a checkpoint"
        for task in tasks
        if not task.higher_is_better
    ]
    suite = Suite(name="dev", title="dev", tasks=tuple(task for task in tasks if task.higher_is_better))
    (plan,) = plans_of([suite], EvalSetup(data=DataFolder.find(data_dir), seed=seed), skip_missing=True)
    return faults + [entry.error for entry in plan.missing]


def dev_score(
    tasks: Sequence[Task], *, data_dir: str | Path | None = None, precision: str = "auto", seed: int = 42
) -> Callable[[Embedder], DevScores]:
    """A function that scores the encoder as it is now by every task's main metric; the data are read here, once.

    >>> dev_score([Sts(protocol="simcse", split="dev"), Retrieval(path="dev")])(encoder).value  # doctest: +SKIP

    Args:
        tasks: several are weighted equally; a task that stands for several sets (``sts``) counts once, by their mean.
        data_dir: the data folder; by default ``SENTEMB_DATA``.
        precision: overrides the encoder's own; ``auto`` leaves it.
        seed: of draws and folds: the same at every evaluation.

    Raises: EvaluationError, DataError: something is missing or malformed; lists all that is missing.
    """
    faults = check_dev(tasks, data_dir=data_dir, seed=seed)
    if faults or not tasks:
        raise EvaluationError("\n".join(faults) or "dev: no task is given")
    setup = EvalSetup(data=DataFolder.find(data_dir), resamples=0, seed=seed)
    loaded = [[(one, one.load(setup)) for one in task.expand(setup)] for task in tasks]
    labels = [task.label for task in tasks]
    # with a number where a name occurs again
    names = [f"{name} {labels[:i].count(name) + 1}" if name in labels[:i] else name for i, name in enumerate(labels)]

    def evaluate(encoder: Embedder) -> DevScores:
        from sentemb.encoder import Encoder

        if isinstance(encoder, Encoder):
            model = of_encoder(encoder, "the encoder", ModelOptions(precision=precision), is_training=True)
        else:
            model = open_model(encoder)
        encode_ahead(model, [pair for group in loaded for pair in group])
        scores = {
            name: float(np.mean([one.run(data, model, setup).main for one, data in group]))
            for name, group in zip(names, loaded, strict=True)
        }
        return DevScores(value=float(np.mean(list(scores.values()))), scores=scores)

    return evaluate
