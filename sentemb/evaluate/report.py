"""Tables of results, for a terminal and as Markdown. Published scores stand beside ours, with the difference.

One results file is one column of scores with its interval; several (seeds of one recipe) are mean ± standard deviation.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sentemb.evaluate.results import Results, TaskResult
from sentemb.evaluate.significance import Interval
from sentemb.resources import share_dir

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = ("task", "protocol", "metric", "n", "score", "95 % interval", "published", "difference")
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
        known = _published(first, published or {})
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


def _published(task: TaskResult, published: Published) -> float | None:
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
        lines += [f"FAILED {failure.task}: {failure.error}" for failure in result.failures]
    return lines
