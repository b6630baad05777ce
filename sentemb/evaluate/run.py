"""Runs a suite on a model: first everything that can be missing is looked for, then task by task; a task that fails is
reported and the others go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from sentemb.errors import EvaluationError, SentembError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.plan import plan_suite
from sentemb.evaluate.prompts import prompt_for
from sentemb.evaluate.results import Results, TaskFailure, TaskResult, machine, now, versions
from sentemb.evaluate.significance import Interval, interval_of_mean
from sentemb.evaluate.suites import Suite
from sentemb.evaluate.work import Plan, Settings, Work
from sentemb.progress import is_quiet


def run_suite(model: EvalModel, suite: Suite, settings: Settings) -> Results:
    """Evaluate ``model`` on ``suite``.

    Raises:
        EvaluationError: Data is missing (all of it is listed, nothing has run), unless ``skip_missing``.
    """
    plan = plan_suite(suite, settings)
    refuse_missing([plan], settings)
    return run_plan(model, suite, plan, settings)


def refuse_missing(plans: Sequence[Plan], settings: Settings) -> None:
    """Before anything runs: an error that lists all that is missing, unless the rest shall run.

    Raises:
        EvaluationError: Something is missing.
    """
    missing = list(dict.fromkeys(entry.error for plan in plans for entry in plan.missing))
    if missing and not settings.skip_missing:
        raise EvaluationError(
            "missing, so nothing was run (--skip-missing runs the rest):\n" + "\n".join(f"  {line}" for line in missing)
        )


def run_plan(model: EvalModel, suite: Suite, plan: Plan, settings: Settings) -> Results:
    """Run what was planned."""
    started, start, texts, seconds = now(), time.perf_counter(), model.texts, model.seconds
    tasks: list[TaskResult] = []
    failures = list(plan.missing)
    _encode_ahead(model, plan.work)
    for number, work in enumerate(plan.work, start=1):
        task_start = time.perf_counter()
        said = f"[{number}/{len(plan.work)}] {work.name}"
        try:
            rows = work.run(model)
            took = time.perf_counter() - task_start
            tasks += [replace(row, seconds=row.seconds or took) for row in rows]
            _say(f"{said}: {', '.join(f'{row.main:.2f}' for row in rows)} in {took:.1f} s")
        except Exception as error:  # of mteb, a task's own code or the model: one task must not lose the others
            failures.append(TaskFailure(work.name, _message(error)))
            _say(f"{said}: failed")
    found = averages(suite, tasks)
    encoded, encoding = model.texts - texts, model.seconds - seconds
    return Results(
        model={**asdict(model.provenance), "width": model.width, "similarity": model.similarity},
        suite=suite.name,
        tasks=tasks,
        failures=failures,
        averages={name: mean for name, (mean, _) in found.items()},
        average_intervals={name: interval for name, (_, interval) in found.items() if interval is not None},
        seed=settings.seed,
        versions=versions(),
        machine=machine(),
        started=started,
        wall_s=time.perf_counter() - start,
        texts=encoded,
        texts_per_s=encoded / encoding if encoding > 0 else 0.0,
    )


def _say(line: str) -> None:
    """A line a task on stderr; the bar, where there is one, is the encoder's."""
    if not is_quiet():
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _message(error: Exception) -> str:
    if isinstance(error, SentembError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def _encode_ahead(model: EvalModel, work: Sequence[Work]) -> None:
    """The texts of all small tasks in one pass, per prompt: longer sorted runs, every text once. A text that cannot be
    encoded is met again, and blamed, in its own task."""
    by_prompt: dict[str | None, dict[str, None]] = {}
    for one in work:
        if one.texts is not None:
            prompt = prompt_for(model.prompts, task=one.name, task_type=one.task_type)
            by_prompt.setdefault(prompt, {}).update(dict.fromkeys(one.texts()))
    for prompt, texts in by_prompt.items():
        try:
            model.encode(list(texts), prompt=prompt)
        except Exception:  # noqa: S112
            continue


def averages(suite: Suite, tasks: Sequence[TaskResult]) -> dict[str, tuple[float, Interval | None]]:
    """Means of main scores; an average with a task missing is NaN, not a mean of the rest. A mean has an interval where
    each of its tasks has one."""
    found: dict[str, tuple[float, Interval | None]] = {}
    by_name = {task.task: task for task in tasks}
    for average in suite.averages:
        names = list(average.tasks) or list(by_name)
        if not names or any(name not in by_name for name in names):
            found[average.name] = float("nan"), None
            continue
        mean = float(np.mean([by_name[name].main for name in names]))
        parts = [interval for name in names if (interval := by_name[name].interval) is not None]
        is_known = len(parts) == len(names) and not np.isnan(mean)
        found[average.name] = mean, interval_of_mean(mean, parts) if is_known else None
    return found
