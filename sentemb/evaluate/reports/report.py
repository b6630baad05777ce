"""Reports of results: a table for people, Markdown, LaTeX. Published scores stand beside ours, with the difference.

One results file is one column of scores with its interval; several (seeds of one recipe) are mean ± standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sentemb.evaluate.reports.published import Published
from sentemb.evaluate.reports.results import Results, TaskResult
from sentemb.evaluate.statistics.significance import Interval

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = ("task", "protocol", "metric", "n", "score", "95 % interval", "published", "difference")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a report, as text."""

    task: str
    protocol: str
    metric: str
    score: str
    count: str = ""
    interval: str = ""
    published: str = ""
    difference: str = ""
    is_average: bool = False
    note: str = ""  # of the interval

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of ``HEADERS``."""
        return (
            self.task,
            self.protocol,
            self.metric,
            self.count,
            self.score,
            self.interval,
            self.published,
            self.difference,
        )


def report_rows(results: Sequence[Results], published: Sequence[Published] = ()) -> list[Row]:
    """Rows of one or several results of the same suite; tasks in the first one's order, then averages."""
    by_key: dict[tuple[str, str, str], list[TaskResult]] = {}
    for result in results:
        for task in result.tasks:
            by_key.setdefault(task.key, []).append(task)
    rows = []
    for runs in by_key.values():
        first = runs[0]
        other = _published(first, published)
        score = float(np.mean([run.main for run in runs]))
        is_single = len(runs) == 1
        rows.append(
            Row(
                task=first.task,
                protocol=first.protocol,
                metric=first.metric,
                count=f"{first.count:,}" if first.count else "",
                score=_score([run.main for run in runs], len(results)),
                interval=_interval(first) if is_single else f"{len(runs)} runs",
                published=number(other) if other is not None else "",
                difference=signed(score - other) if other is not None else "",
                note=first.interval_note if is_single else "",
            )
        )
        for system in first.baselines:
            values = [run.baselines[system] for run in runs if system in run.baselines]
            rows.append(
                Row(
                    task=f"  {system}",
                    protocol=first.protocol,
                    metric=first.metric,
                    score=_score(values, len(results)),
                    interval=_shown_interval(first.baseline_intervals.get(system)) if is_single else "",
                )
            )
    return rows + [
        _average_row(name, results) for name in dict.fromkeys(name for result in results for name in result.averages)
    ]


def _average_row(name: str, results: Sequence[Results]) -> Row:
    means = [result.averages[name] for result in results if name in result.averages]
    interval = results[0].average_intervals.get(name) if len(results) == 1 else None
    shown = _shown_interval(interval) + (" ¹" if interval else "")
    note = "interval over the items of these tasks, from the tasks' own intervals" if interval else ""
    return Row(
        task=name,
        protocol="",
        metric="mean",
        score=_score(means, len(results)),
        interval=shown,
        is_average=True,
        note=note,
    )


def number(value: float) -> str:
    """A score with two decimals; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def signed(difference: float) -> str:
    """A difference with two decimals and its sign, without a negative zero."""
    return f"{round(difference, 2) + 0.0:+.2f}"


def _score(values: Sequence[float], runs: int) -> str:
    if runs == 1 or len(values) == 1:
        return number(values[0])
    return f"{number(float(np.mean(values)))} ± {number(float(np.std(values, ddof=1)))}"


def _interval(task: TaskResult) -> str:
    if task.interval is None:
        return "none" if task.interval_note else ""
    return _shown_interval(task.interval) + (" ¹" if task.interval_note else "")


def _shown_interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.2f} – {interval.high:.2f}"


def interval_notes(rows: Sequence[Row]) -> list[str]:
    """What was resampled where it was not a task's items, and why an interval is missing: a line a reason."""
    tasks: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            mark = "" if row.interval == "none" else "¹ "
            tasks.setdefault(mark + row.note, []).append(row.task)
    return [f"{note}: {', '.join(names)}" for note, names in tasks.items()]


def _published(task: TaskResult, published: Sequence[Published]) -> float | None:
    """The published score of the same task in the same protocol; tasks are matched by name without case and marks."""
    for entry in published:
        if _plain(entry.task) == _plain(task.task) and _same_protocol(entry.protocol, task):
            return entry.score
    return None


def _same_protocol(protocol: str, task: TaskResult) -> bool:
    """MTEB's published scores hold for whatever runs MTEB's own rules: mteb itself, our STS on raw text, BEIR's
    retrieval, the few-shot classification."""
    if protocol != "mteb":
        return task.protocol == protocol
    return task.protocol in ("mteb", "beir") or task.protocol.startswith("fewshot ")


def _plain(name: str) -> str:
    letters = "".join(c for c in name.lower() if c.isalnum())
    return letters.removesuffix("classification") or letters


def table(rows: Sequence[Row], title: str) -> Table:
    """A rich table."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = _shown(rows)
    notes = escape("\n".join(interval_notes(rows))) or None
    out = RichTable(title=title, title_justify="left", caption=notes, caption_justify="left")
    for index in shown:
        out.add_column(HEADERS[index], justify="left" if index < 3 else "right")
    for row in rows:
        out.add_row(*(row.cells[index] for index in shown), style="bold" if row.is_average else None)
    return out


def markdown(rows: Sequence[Row]) -> str:
    """A GitHub table."""
    shown = _shown(rows)
    cells = []
    for row in rows:
        texts = [row.cells[index].strip() for index in shown]
        cells.append(tuple(f"**{text}**" if row.is_average and text else text for text in texts))
    lines = markdown_table([HEADERS[index] for index in shown], cells, left=sum(index < 3 for index in shown))
    return lines + "".join(f"\n{note}\n" for note in interval_notes(rows))


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Any cells as a GitHub table; the first ``left`` columns are aligned left, the others right."""
    lines = [headers, ["---" if index < left else "---:" for index in range(len(headers))], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "¹": "$^1$",
}


def latex(rows: Sequence[Row], caption: str) -> str:
    """A ``booktabs`` table."""
    shown = _shown(rows)
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\begin{tabular}{" + "".join("l" if i < 3 else "r" for i in shown) + "}",
        r"\toprule",
        " & ".join(_escaped(HEADERS[index]) for index in shown) + r" \\",
        r"\midrule",
    ]
    averages_begun = False
    for row in rows:
        if row.is_average and not averages_begun:
            lines.append(r"\midrule")
            averages_begun = True
        lines.append(" & ".join(_escaped(row.cells[index].strip()) for index in shown) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par{{\footnotesize {_escaped(note)}}}" for note in interval_notes(rows)]
    lines += [rf"\caption{{{_escaped(caption)}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _shown(rows: Sequence[Row]) -> list[int]:
    """Columns that hold anything."""
    return [index for index in range(len(HEADERS)) if index in (0, 4) or any(row.cells[index] for row in rows)]


def summary(results: Sequence[Results]) -> list[str]:
    """What the scores hold for: model, protocol's versions, speed; and failed tasks."""
    lines = []
    for result in results:
        model = result.model
        identifiers = {"revision": model.revision, "digest": model.digest, "recipe": model.recipe}
        facts = [f"model {model.name}", *(f"{key} {value[:12]}" for key, value in identifiers.items() if value)]
        facts += [model.precision] if model.precision else []
        facts += [f"seed {model.recipe_seed}"] if model.recipe_seed is not None else []
        lines.append(", ".join(facts))
        if result.wall_s and result.texts:
            lines.append(f"{result.texts:,} texts encoded at {result.texts_per_s:,.0f}/s, {result.wall_s:.1f} s in all")
        lines += [f"FAILED {failure.task}: {failure.error}" for failure in result.failures]
    return lines
