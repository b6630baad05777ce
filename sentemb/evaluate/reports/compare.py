"""Compares two models, or two recipes over several seeds, task by task.

One results file a side: a paired test on the items of each task (permutation for means, bootstrap for statistics of
pairs). Several seeds on both sides: Welch's test on the seeds' scores, because the spread over seeds is what a new run
would meet. p-values are corrected over the tasks by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sentemb.errors import DataError, EvaluationError
from sentemb.evaluate.reports.report import number, signed
from sentemb.evaluate.reports.results import Items, Results, TaskResult, read_results
from sentemb.evaluate.statistics.significance import (
    Comparison,
    holm,
    in_points,
    paired_bootstrap,
    paired_permutation,
    welch,
)

HEADERS = ("task", "protocol", "A", "B", "B − A", "95 % interval", "p", "p (Holm)", "test")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One task: mean scores ×100 of both sides, their standard deviations over seeds, and the test."""

    task: str
    protocol: str
    metric: str
    a: float
    b: float
    a_sd: float | None
    b_sd: float | None
    result: Comparison | None  # None where no test is possible; ``note`` says why
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """As text, in the order of ``HEADERS``; * marks a corrected p below 0.05."""
        scores = (_with_sd(self.a, self.a_sd), _with_sd(self.b, self.b_sd))
        difference, test = signed(self.b - self.a), self.result
        if test is None:
            return self.task, self.protocol, *scores, difference, "", "", "", self.note
        interval = f"{test.interval.low:+.2f} – {test.interval.high:+.2f}" if test.interval else ""
        star = " *" if test.p_holm < 0.05 else ""
        return (
            self.task, self.protocol, *scores, difference + star, interval, _p(test.p), _p(test.p_holm), test.test
        )  # fmt: skip


def load_side(source: Path) -> list[Results]:
    """A results file, or a folder with several (seeds of one recipe).

    Raises: DataError: nothing is there, or a file that is no results file.
    """
    if not source.is_dir():
        if not source.is_file():
            raise DataError(f"{source}: no such results file")
        return [read_results(source)]
    results = [read_results(path) for path in sorted(source.rglob("*.json")) if _looks_like_results(path)]
    if not results:
        raise DataError(f"{source}: no results file of sentemb eval in this folder")
    return results


def _looks_like_results(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"format"' in file.read(64)


def compare(a: Sequence[Results], b: Sequence[Results], *, resamples: int = 10_000, seed: int = 0) -> list[Difference]:
    """Differences B − A on every task that both sides have.

    Raises: EvaluationError: they share no task.
    """
    runs_a, runs_b = _by_task(a), _by_task(b)
    shared = [key for key in runs_a if key in runs_b]
    if not shared:
        names_a, names_b = (", ".join(sorted({key[0] for key in runs})) or "none" for runs in (runs_a, runs_b))
        raise EvaluationError(
            f"no task in common; A has {names_a}; B has {names_b} (task, protocol and metric must agree)"
        )
    rows = [_difference(runs_a[key], runs_b[key], resamples, seed) for key in shared]
    corrected = holm([row.result.p if row.result is not None else math.nan for row in rows])
    return [
        replace(row, result=replace(row.result, p_holm=p)) if row.result is not None else row
        for row, p in zip(rows, corrected, strict=True)
    ]


def _by_task(side: Sequence[Results]) -> dict[tuple[str, str, str], list[TaskResult]]:
    by_task: dict[tuple[str, str, str], list[TaskResult]] = {}
    for results in side:
        for task in results.tasks:
            by_task.setdefault(task.key, []).append(task)
    return by_task


def _difference(a: Sequence[TaskResult], b: Sequence[TaskResult], resamples: int, seed: int) -> Difference:
    scores = [run.main for run in a], [run.main for run in b]
    result, note = (welch(*scores), "") if len(a) > 1 and len(b) > 1 else _paired(a, b, resamples, seed)
    means = [float(np.mean(side)) for side in scores]
    spreads = [float(np.std(side, ddof=1)) if len(side) > 1 else None for side in scores]
    first = a[0]
    return Difference(
        task=first.task, protocol=first.protocol, metric=first.metric,
        a=means[0], b=means[1], a_sd=spreads[0], b_sd=spreads[1], result=result, note=note,
    )  # fmt: skip


def _paired(
    a: Sequence[TaskResult], b: Sequence[TaskResult], resamples: int, seed: int
) -> tuple[Comparison | None, str]:
    one, two = a[0].items, b[0].items
    if len(a) > 1 or len(b) > 1:
        return None, "one side has several seeds, the other one run: run more seeds"
    if one is None or two is None:
        return None, "no values per item were kept"
    if _identity(one) != _identity(two):
        return None, "the two saw different data"
    if len(one.gold):
        predicted = np.asarray(one.predicted), np.asarray(two.predicted)
        result = paired_bootstrap(
            *predicted, np.asarray(one.gold), statistic=one.statistic, strata=one.strata, resamples=resamples, seed=seed
        )
    else:
        values = np.asarray(one.values), np.asarray(two.values)
        result = paired_permutation(*values, strata=one.strata, resamples=resamples, seed=seed)
    interval = in_points(result.interval) if result.interval is not None else None
    return replace(result, difference=100 * result.difference, interval=interval), ""


def _identity(items: Items) -> tuple[object, ...]:
    """What must agree for two models' items to be pairs."""
    return items.fingerprint, len(items), list(items.strata), items.statistic


def _with_sd(mean: float, sd: float | None) -> str:
    return number(mean) if sd is None else f"{number(mean)} ± {number(sd)}"


def _p(p: float) -> str:
    if math.isnan(p):
        return "–"
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
