"""Tables of results, and of the differences between two models, for a terminal and as Markdown.

One results file is one column of scores with its interval; several (seeds of one recipe) are mean ± standard deviation.
Published scores stand beside ours. Two models are compared task by task: one results file a side by a paired test on
the items (permutation for means, bootstrap for statistics of pairs), several seeds on both sides by Welch's test on the
seeds' scores, because the spread over seeds is what a new run would meet. p-values are corrected by Holm's method.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentemb.errors import DataError, EvaluationError
from sentemb.evaluate.groups import group_line
from sentemb.evaluate.results import Results, TaskResult, read_results
from sentemb.evaluate.significance import Comparison, Interval, holm, paired_bootstrap, paired_permutation, welch
from sentemb.files import share_dir

if TYPE_CHECKING:
    from rich.table import Table

    from sentemb.pages import Node

HEADERS = ("task", "protocol", "metric", "n", "score", "95 % interval", "published", "difference")
COMPARED = ("task", "protocol", "A", "B", "B − A", "95 % interval", "p", "p (Holm)", "test")
Published = Mapping[tuple[str, str], float]  # (protocol, plain name of the task) -> score ×100


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table as text; columns that are empty are not shown."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int  # aligned left; numbers stand at the right
    bold_from: int = 10**9  # the row with which averages begin
    notes: Sequence[str] = ()

    def _columns(self) -> list[int]:
        return [column for column in range(len(self.headers)) if any(row[column] for row in self.rows)]

    def drawn(self, title: str | None = None) -> Table:
        """For a terminal."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        notes = escape("\n".join(self.notes)) or None
        table = RichTable(title=title, title_justify="left", caption=notes, caption_justify="left")
        for column in self._columns():
            table.add_column(self.headers[column], justify="left" if column < self.text_columns else "right")
        for number, row in enumerate(self.rows):
            cells = [row[column] for column in self._columns()]
            table.add_row(*cells, style="bold" if number >= self.bold_from else None)
        return table

    def markdown(self) -> str:
        """As GitHub shows it."""
        columns = self._columns()
        lines = [[self.headers[column] for column in columns]]
        lines.append(["---" if column < self.text_columns else "---:" for column in columns])
        for number, row in enumerate(self.rows):
            cells = [row[column].strip().replace("|", "\\|") for column in columns]
            lines.append([f"**{cell}**" if cell and number >= self.bold_from else cell for cell in cells])
        table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
        return table + "".join(f"\n{note}\n" for note in self.notes)

    def html(self) -> list[Node]:
        """The table for a page or a notebook's cell, then its notes."""
        from sentemb.pages import node, table

        columns = self._columns()
        rows = [[row[column] for column in columns] for row in self.rows]
        text_columns = sum(column < self.text_columns for column in columns)
        shown = table([self.headers[column] for column in columns], rows, text_columns=text_columns,
                      foot_from=self.bold_from)  # fmt: skip
        return [shown, *(node("p", {"class": "soft"}, note) for note in self.notes)]


def report_sheet(results: Sequence[Results], published: Published | None = None) -> Sheet:
    """One or several results of the same suite: tasks in the first one's order, other systems under them, averages."""
    by_key: dict[tuple[str, str, str], list[TaskResult]] = {}
    for task in (task for result in results for task in result.tasks):
        by_key.setdefault(task.key, []).append(task)
    rows: list[tuple[str, ...]] = []
    notes: dict[str, list[str]] = {}

    def add(name: str, labels: Sequence[str], scores: Sequence[float], interval: Interval | None, note: str = "",
            *comparison: str) -> None:  # fmt: skip
        is_single = len(scores) == 1
        shown = f"{interval.low:.2f} – {interval.high:.2f}" if interval else "none" if note else ""
        if is_single and note:
            notes.setdefault(f"¹ {note}" if interval else note, []).append(name)
            shown += " ¹" if interval else ""
        shown = shown if is_single else f"{len(scores)} runs"
        rows.append((name, *labels, mean_and_sd(scores), shown, *(comparison or ("", ""))))

    for runs in by_key.values():
        first, mains = runs[0], [run.main for run in runs]
        labels = (first.protocol, first.metric)
        known = published_of(first, published or {})
        beside = () if known is None else (number(known), signed(float(np.mean(mains)) - known))
        count = f"{first.count:,}" if first.count else ""
        add(first.task, (*labels, count), mains, first.interval, first.interval_note, *beside)
        for system in first.baselines:
            scores = [run.baselines[system] for run in runs if system in run.baselines]
            add(f"  {system}", (*labels, ""), scores, first.baseline_intervals.get(system))
    tasks = len(rows)
    for name in dict.fromkeys(name for result in results for name in result.averages):
        means = [result.averages[name] for result in results if name in result.averages]
        interval = results[0].average_intervals.get(name)
        note = "interval over the items of these tasks, from the tasks' own intervals" if interval else ""
        add(name, ("", "mean", ""), means, interval, note)
    lines = [f"{note}: {', '.join(names)}" for note, names in notes.items()]
    of_groups = (group_line(task.task, task.metrics) for task in results[0].tasks if len(results) == 1)
    lines += [line for line in of_groups if line]
    return Sheet(headers=HEADERS, rows=rows, text_columns=3, bold_from=tasks, notes=lines)


def number(value: float) -> str:
    """A score with two decimals; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def signed(difference: float) -> str:
    """A difference with two decimals and its sign, without a negative zero."""
    return f"{round(difference, 2) + 0.0:+.2f}"


def mean_and_sd(scores: Sequence[float]) -> str:
    """One score, or the mean of several with their standard deviation."""
    mean = number(float(np.mean(scores)))
    return mean if len(scores) == 1 else f"{mean} ± {number(float(np.std(scores, ddof=1)))}"


def published_scores(model: str) -> dict[tuple[str, str], float]:
    """Published scores of a model, matched by its name with or without organisation, case ignored.

    Files ``eval/published/*.csv`` with the columns model, task, protocol, score, source.
    """
    scores = {}
    for path in sorted(share_dir("eval", "published").glob("*.csv")):
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            if _base_name(row["model"]) == _base_name(model):
                scores[row["protocol"], plain_name(row["task"])] = float(row["score"])
    return scores


def _base_name(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1].lower()


def published_of(task: TaskResult, published: Published) -> float | None:
    """The published score of the same task in the same protocol. MTEB's hold for whatever runs MTEB's own rules: mteb
    itself, our STS on raw text, BEIR's retrieval, the few-shot classification."""
    is_mteb = task.protocol in ("mteb", "beir") or task.protocol.startswith("fewshot ")
    return published.get(("mteb" if is_mteb else task.protocol, plain_name(task.task)))


def plain_name(name: str) -> str:
    """A task's name without case and marks."""
    letters = "".join(c for c in name.lower() if c.isalnum())
    return letters.removesuffix("classification") or letters


def summary(results: Sequence[Results]) -> list[str]:
    """What the scores hold for: model, its identifiers, speed; and failed tasks."""
    lines = []
    for result in results:
        model = result.model
        identifiers = {"revision": model.revision, "digest": model.digest}
        facts = [f"{key} {value[:12]}" for key, value in identifiers.items() if value]
        lines.append(", ".join([f"model {model.name}", *facts, *([model.precision] if model.precision else [])]))
        if result.wall_s and result.texts:
            lines.append(f"{result.texts:,} texts encoded at {result.texts_per_s:,.0f}/s, {result.wall_s:.1f} s in all")
        if result.cut:
            lines.append(f"{result.cut:,} texts were cut, which are longer than the {model.max_tokens} tokens it reads")
        lines += [f"FAILED {failure.task}: {failure.error}" for failure in result.failures]
    return lines


# ------------------------------------------------------------------------------------------ comparisons
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
    return Sheet(headers=COMPARED, rows=cells, text_columns=2)


def _p(p: float) -> str:
    if math.isnan(p):
        return "–"
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
