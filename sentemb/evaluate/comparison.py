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
from typing import Any

import numpy as np

from sentemb.errors import DataError, EvaluationError
from sentemb.evaluate.report import Sheet, mean_and_sd, signed
from sentemb.evaluate.results import Results, TaskResult, read_results
from sentemb.evaluate.significance import Comparison, holm, paired_bootstrap, paired_permutation, welch

HEADERS = ("task", "protocol", "A", "B", "B − A", "95 % interval", "p", "p (Holm)", "test")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One task: mean scores ×100 of both sides, those of their runs, and the test."""

    task: str
    protocol: str
    metric: str
    a: float
    b: float
    scores_a: Sequence[float]  # of every run
    scores_b: Sequence[float]
    result: Comparison | None  # None where no test is possible; ``note`` says why
    note: str = ""


def load_side(source: Path) -> list[Results]:
    """A results file, or a folder with several (seeds of one recipe).

    Raises: DataError: nothing is there, or a file that is no results file.
    """
    if not source.exists():
        raise DataError(f"{source}: no such results file")
    if source.is_file():
        return [read_results(source)]
    paths = [path for path in sorted(source.rglob("*.json")) if b'"format"' in path.read_bytes()[:64]]
    if not paths:
        raise DataError(f"{source}: no results file of sentemb eval in this folder")
    return [read_results(path) for path in paths]


def compare(a: Sequence[Results], b: Sequence[Results], *, resamples: int = 10_000, seed: int = 0) -> list[Difference]:
    """Differences B − A on every task that both sides have.

    Raises: EvaluationError: they share no task.
    """
    sides: list[dict[tuple[str, str, str], list[TaskResult]]] = [{}, {}]
    for side, files in zip(sides, (a, b), strict=True):
        for task in (task for results in files for task in results.tasks):
            side.setdefault(task.key, []).append(task)
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        names_a, names_b = (", ".join(sorted({name for name, _, _ in side})) or "none" for side in sides)
        raise EvaluationError(
            f"no task in common; A has {names_a}; B has {names_b} (task, protocol and metric must agree)"
        )
    rows = [_difference(sides[0][key], sides[1][key], resamples, seed) for key in shared]
    corrected = holm([row.result.p if row.result is not None else math.nan for row in rows])
    return [
        replace(row, result=replace(row.result, p_holm=p)) if row.result is not None else row
        for row, p in zip(rows, corrected, strict=True)
    ]


def _difference(a: Sequence[TaskResult], b: Sequence[TaskResult], resamples: int, seed: int) -> Difference:
    scores = [run.main for run in a], [run.main for run in b]
    result, note = (welch(*scores), "") if len(a) > 1 and len(b) > 1 else _paired(a, b, resamples, seed)
    return Difference(
        task=a[0].task, protocol=a[0].protocol, metric=a[0].metric, scores_a=scores[0], scores_b=scores[1],
        a=float(np.mean(scores[0])), b=float(np.mean(scores[1])), result=result, note=note,
    )  # fmt: skip


def _paired(
    a: Sequence[TaskResult], b: Sequence[TaskResult], resamples: int, seed: int
) -> tuple[Comparison | None, str]:
    one, two = a[0].items, b[0].items
    if len(a) > 1 or len(b) > 1:
        return None, "one side has several seeds, the other one run: run more seeds"
    if one is None or two is None:
        return None, "no values per item were kept"
    if (one.fingerprint, len(one), one.score_options) != (two.fingerprint, len(two), two.score_options):
        return None, "the two saw different data"
    options: dict[str, Any] = {"strata": one.strata, "resamples": resamples, "seed": seed}
    if len(one.gold):
        predicted, gold = one.columns
        result = paired_bootstrap(predicted, two.columns[0], gold, statistic=one.statistic, **options)
    else:
        result = paired_permutation(one.columns[0], two.columns[0], **options)
    interval = result.interval.in_points() if result.interval is not None else None
    return replace(result, difference=100 * result.difference, interval=interval), ""


def compare_sheet(rows: Sequence[Difference]) -> Sheet:
    """The differences as a table; * marks a corrected p below 0.05."""
    cells = []
    for row in rows:
        scores, test = (mean_and_sd(row.scores_a), mean_and_sd(row.scores_b)), row.result
        difference = signed(row.b - row.a)
        tested = ["", "", "", row.note]
        if test is not None:
            interval = f"{test.interval.low:+.2f} – {test.interval.high:+.2f}" if test.interval else ""
            tested = [interval, _p(test.p), _p(test.p_holm), test.test]
            difference += " *" if test.p_holm < 0.05 else ""
        cells.append([row.task, row.protocol, *scores, difference, *tested])
    return Sheet(headers=HEADERS, rows=cells, text_columns=2)


def _p(p: float) -> str:
    if math.isnan(p):
        return "–"
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
