"""Tables of results, for a terminal and as Markdown. Published scores stand beside ours, with the difference.

One results file is one column of scores with its interval; several (seeds of one recipe) are mean ± standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from sentemb.evaluate.reading.tables import number_of, read_rows, text_of
from sentemb.evaluate.reports.results import Results, TaskResult
from sentemb.evaluate.statistics.significance import Interval
from sentemb.resources import share_dir

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = ("task", "protocol", "metric", "n", "score", "95 % interval", "published", "difference")
_TEXT_COLUMNS = 3  # aligned left; numbers are aligned right


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a report, as text; the first fields are its cells, in the order of ``HEADERS``."""

    task: str
    protocol: str = ""
    metric: str = ""
    count: str = ""
    score: str
    interval: str = ""
    published: str = ""
    difference: str = ""
    is_average: bool = False
    note: str = ""  # of the interval

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of ``HEADERS``."""
        return astuple(self)[: len(HEADERS)]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A score that somebody published, ×100."""

    model: str
    task: str
    protocol: str
    score: float
    source: str


def published_scores(model: str) -> list[Published]:
    """Published scores of a model, matched by its name with or without organisation, case ignored.

    Files ``eval/published/*.csv`` with the columns model, task, protocol, score, source.

    Raises: DataError: a malformed file.
    """
    rows = [row for path in sorted(share_dir("eval", "published").glob("*.csv")) for row in read_rows(path)]
    return [
        Published(
            model=text_of(row, "model"), task=text_of(row, "task"), protocol=text_of(row, "protocol"),
            score=number_of(row, "score"), source=text_of(row, "source"),
        )
        for row in rows
        if _base_name(text_of(row, "model")) == _base_name(model)
    ]


def _base_name(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1].lower()


def report_rows(results: Sequence[Results], published: Sequence[Published] = ()) -> list[Row]:
    """Rows of one or several results of the same suite; tasks in the first one's order, then averages."""
    by_key: dict[tuple[str, str, str], list[TaskResult]] = {}
    for result in results:
        for task in result.tasks:
            by_key.setdefault(task.key, []).append(task)
    rows = []
    for runs in by_key.values():
        rows += _task_rows(runs, _published(runs[0], published), len(results))
    names = dict.fromkeys(name for result in results for name in result.averages)
    return rows + [_average_row(name, results) for name in names]


def _task_rows(runs: Sequence[TaskResult], published: float | None, files: int) -> list[Row]:
    """The row of a task and, under it, those of the other systems on it."""
    first, is_single = runs[0], len(runs) == 1
    mean = float(np.mean([run.main for run in runs]))
    main = Row(
        task=first.task, protocol=first.protocol, metric=first.metric, count=f"{first.count:,}" if first.count else "",
        score=_score([run.main for run in runs], files),
        interval=_interval(first) if is_single else f"{len(runs)} runs",
        published=number(published) if published is not None else "",
        difference=signed(mean - published) if published is not None else "",
        note=first.interval_note if is_single else "",
    )  # fmt: skip
    baselines = [
        Row(
            task=f"  {system}", protocol=first.protocol, metric=first.metric,
            score=_score([run.baselines[system] for run in runs if system in run.baselines], files),
            interval=_shown(first.baseline_intervals.get(system)) if is_single else "",
        )
        for system in first.baselines
    ]
    return [main, *baselines]


def _average_row(name: str, results: Sequence[Results]) -> Row:
    means = [result.averages[name] for result in results if name in result.averages]
    interval = results[0].average_intervals.get(name) if len(results) == 1 else None
    note = "interval over the items of these tasks, from the tasks' own intervals" if interval else ""
    shown = _shown(interval) + (" ¹" if interval else "")
    return Row(task=name, metric="mean", score=_score(means, len(results)), interval=shown, is_average=True, note=note)


def number(value: float) -> str:
    """A score with two decimals; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def signed(difference: float) -> str:
    """A difference with two decimals and its sign, without a negative zero."""
    return f"{round(difference, 2) + 0.0:+.2f}"


def _score(values: Sequence[float], files: int) -> str:
    if files == 1 or len(values) == 1:
        return number(values[0])
    return f"{number(float(np.mean(values)))} ± {number(float(np.std(values, ddof=1)))}"


def _interval(task: TaskResult) -> str:
    if task.interval is None:
        return "none" if task.interval_note else ""
    return _shown(task.interval) + (" ¹" if task.interval_note else "")


def _shown(interval: Interval | None) -> str:
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
    scores = {_plain(one.task): one.score for one in published if _is_alike(one.protocol, task)}
    return scores.get(_plain(task.task))


def _is_alike(protocol: str, task: TaskResult) -> bool:
    """MTEB's published scores hold for whatever runs MTEB's own rules: mteb itself, our STS on raw text, BEIR's
    retrieval, the few-shot classification."""
    if protocol != "mteb":
        return task.protocol == protocol
    return task.protocol in ("mteb", "beir") or task.protocol.startswith("fewshot ")


def _plain(name: str) -> str:
    letters = "".join(c for c in name.lower() if c.isalnum())
    return letters.removesuffix("classification") or letters


# ---------------------------------------------------------------------------------------------------- tables
def table(rows: Sequence[Row], title: str) -> Table:
    """A rich table."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    columns = _columns(rows)
    notes = escape("\n".join(interval_notes(rows))) or None
    drawn = RichTable(title=title, title_justify="left", caption=notes, caption_justify="left")
    for index in columns:
        drawn.add_column(HEADERS[index], justify="left" if index < _TEXT_COLUMNS else "right")
    for row in rows:
        drawn.add_row(*(row.cells[index] for index in columns), style="bold" if row.is_average else None)
    return drawn


def markdown(rows: Sequence[Row]) -> str:
    """A GitHub table."""
    columns = _columns(rows)
    cells = []
    for row in rows:
        texts = [row.cells[index].strip() for index in columns]
        cells.append([f"**{text}**" if row.is_average and text else text for text in texts])
    left = sum(index < _TEXT_COLUMNS for index in columns)
    lines = markdown_table([HEADERS[index] for index in columns], cells, left=left)
    return lines + "".join(f"\n{note}\n" for note in interval_notes(rows))


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Any cells as a GitHub table; the first ``left`` columns are aligned left, the others right."""
    lines = [headers, ["---" if index < left else "---:" for index in range(len(headers))], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _columns(rows: Sequence[Row]) -> list[int]:
    """Columns that hold anything."""
    return [index for index in range(len(HEADERS)) if index in (0, 4) or any(row.cells[index] for row in rows)]


def summary(results: Sequence[Results]) -> list[str]:
    """What the scores hold for: model, its identifiers, speed; and failed tasks."""
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
