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


def load_side(source: Path) -> list[Results]:
    """A results file, or a folder with several (seeds of one recipe).

    Raises:
        DataError: Nothing there, or a file that is no results file.
    """
    if source.is_dir():
        files = sorted(source.rglob("*.json"))
        results = [read_results(path) for path in files if _looks_like_results(path)]
        if not results:
            raise DataError(f"{source}: no results file of sentemb eval in this folder")
        return results
    if not source.is_file():
        raise DataError(f"{source}: no such results file")
    return [read_results(source)]


def _looks_like_results(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"format"' in file.read(64)


def compare(a: Sequence[Results], b: Sequence[Results], *, resamples: int = 10_000, seed: int = 0) -> list[Difference]:
    """Differences B − A on every task that both sides have.

    Raises:
        EvaluationError: They share no task.
    """
    runs_a, runs_b = _by_task(a), _by_task(b)
    shared = [key for key in runs_a if key in runs_b]
    if not shared:
        raise EvaluationError(
            f"no task in common; A has {', '.join(sorted({key[0] for key in runs_a})) or 'none'}; B has "
            f"{', '.join(sorted({key[0] for key in runs_b})) or 'none'} (task, protocol and metric must agree)"
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
    scores_a, scores_b = [run.main for run in a], [run.main for run in b]
    result: Comparison | None = None
    note = ""
    if len(a) > 1 and len(b) > 1:
        result = welch(scores_a, scores_b)
    else:
        result, note = _paired(a, b, resamples, seed)
    return Difference(
        task=a[0].task,
        protocol=a[0].protocol,
        metric=a[0].metric,
        a=float(np.mean(scores_a)),
        b=float(np.mean(scores_b)),
        a_sd=_sd(scores_a),
        b_sd=_sd(scores_b),
        result=result,
        note=note,
    )


def _paired(
    a: Sequence[TaskResult], b: Sequence[TaskResult], resamples: int, seed: int
) -> tuple[Comparison | None, str]:
    if len(a) > 1 or len(b) > 1:
        return None, "one side has several seeds, the other one run: run more seeds"
    one, two = a[0].items, b[0].items
    if one is None or two is None:
        return None, "no values per item were kept"
    if one.fingerprint != two.fingerprint or len(one) != len(two) or list(one.strata) != list(two.strata) \
            or one.statistic != two.statistic:
        return None, "the two saw different data"
    return _in_points(_test(one, two, resamples, seed)), ""


def _test(one: Items, two: Items, resamples: int, seed: int) -> Comparison:
    if len(one.gold):
        return paired_bootstrap(
            np.asarray(one.predicted),
            np.asarray(two.predicted),
            np.asarray(one.gold),
            statistic=one.statistic,
            strata=one.parts(),
            resamples=resamples,
            seed=seed,
        )
    values = np.asarray(one.values), np.asarray(two.values)
    return paired_permutation(*values, strata=one.parts(), resamples=resamples, seed=seed)


def _in_points(result: Comparison) -> Comparison:
    interval = result.interval
    if interval is not None:
        interval = in_points(interval)
    return replace(result, difference=100 * result.difference, interval=interval)


def _sd(scores: Sequence[float]) -> float | None:
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else None


HEADERS = ("task", "protocol", "A", "B", "B − A", "95 % interval", "p", "p (Holm)", "test")


def comparison_cells(rows: Sequence[Difference]) -> list[tuple[str, ...]]:
    """The rows as text, in the order of ``HEADERS``; * marks a corrected p below 0.05."""
    cells: list[tuple[str, ...]] = []
    for row in rows:
        result = row.result
        interval = f"{result.interval.low:+.2f} – {result.interval.high:+.2f}" if result and result.interval else ""
        star = " *" if result is not None and result.p_holm < 0.05 else ""
        cells.append(
            (
                row.task,
                row.protocol,
                _with_sd(row.a, row.a_sd),
                _with_sd(row.b, row.b_sd),
                signed(row.b - row.a) + star,
                interval,
                _p(result.p) if result else "",
                _p(result.p_holm) if result else "",
                result.test if result else row.note,
            )
        )
    return cells


def _with_sd(mean: float, sd: float | None) -> str:
    return number(mean) if sd is None else f"{number(mean)} ± {number(sd)}"


def _p(p: float) -> str:
    if math.isnan(p):
        return "–"
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
