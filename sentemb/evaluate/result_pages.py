"""Results for a browser: scores with intervals, differences, groups, geometry, failures, what the scores hold for.

A side is one model: one results file, or several of one recipe's seeds, as ``evaluate.report`` compares them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from sentemb.errors import EvaluationError
from sentemb.evaluate.groups import GAP, PREFIX, WORST
from sentemb.evaluate.report import (
    Sheet,
    compare,
    compare_sheet,
    mean_and_sd,
    number,
    published_of,
    published_scores,
    report_sheet,
    summary,
)
from sentemb.evaluate.results import Results, TaskResult
from sentemb.evaluate.significance import Interval
from sentemb.pages import Chart, Dot, DotRow, Node, Points, dot_chart, fragment, node, point_chart, table
from sentemb.pages.page import facts, figure, origin, scrolling, versions_of

Section = tuple[str, list[Node | None]]
GEOMETRY = "Geometry"  # tasks whose figures are no scores


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model by the name that the page has for it, and its results."""

    name: str
    runs: Sequence[Results]

    @property
    def scored(self) -> list[Results]:
        """The runs without their descriptions of the space."""
        return [replace(run, tasks=[task for task in run.tasks if task.kind != GEOMETRY]) for run in self.runs]

    def tasks(self, *, geometry: bool = False) -> dict[tuple[str, str, str], list[TaskResult]]:
        """The runs' results by task, in the first run's order: scores, or descriptions of the space."""
        by_key: dict[tuple[str, str, str], list[TaskResult]] = {}
        for task in (task for run in self.runs for task in run.tasks):
            if (task.kind == GEOMETRY) == geometry:
                by_key.setdefault(task.key, []).append(task)
        return by_key


def named(sides: Sequence[Sequence[Results]]) -> list[Side]:
    """Sides with names that differ: the models', with a number where one recurs."""
    names = [runs[0].model.name for runs in sides]
    shown = [name if len(name) <= 40 else f"…{name[-39:]}" for name in names]
    shown = [f"{name} and {len(runs) - 1} more" if len(runs) > 1 else name
             for name, runs in zip(shown, sides, strict=True)]  # fmt: skip
    return [
        Side(name=name if shown.count(name) == 1 else f"{name} ({shown[: i + 1].count(name)})", runs=runs)
        for i, (name, runs) in enumerate(zip(shown, sides, strict=True))
    ]


def result_sections(sides: Sequence[Side], *, resamples: int = 10_000, seed: int = 0) -> list[Section]:
    """The page's sections by heading; those without content are left out."""
    sections = [
        ("Scores", _scores(sides)),
        ("Differences", _differences(sides, resamples=resamples, seed=seed)),
        ("Groups", _groups(sides)),
        ("Geometry", _geometry(sides)),
        ("Without a score", _failures(sides)),
        ("What the scores hold for", [one for side in sides for one in _identity(side)]),
    ]
    return [(heading, content) for heading, content in sections if content]


def results_in_cell(results: Results) -> str:
    """One model's table of scores as HTML, for a notebook's cell."""
    sheet = report_sheet([results], published_scores(results.model.name))
    return fragment(*sheet.html(), *(node("p", {}, line) for line in summary([results])))


# ------------------------------------------------------------------------------------------------- scores
def score_chart(sides: Sequence[Side]) -> Chart:
    """Every task's score with its interval, a mark a side; published scores are hollow. Averages stand at the end."""
    by_side = [side.tasks() for side in sides]
    published = [published_scores(side.runs[0].model.name) for side in sides]
    rows = [
        DotRow(label=_label(key, by_side),
               dots=[_dot(tasks.get(key, ()), known) for tasks, known in zip(by_side, published, strict=True)])
        for key in dict.fromkeys(key for tasks in by_side for key in tasks)
    ]  # fmt: skip
    for name in dict.fromkeys(name for side in sides for name in side.runs[0].averages):
        rows.append(DotRow(label=name, dots=[_average(side, name) for side in sides]))
    return dot_chart(
        rows, [side.name for side in sides], title="Scores", axis="score × 100", beside="published",
    )  # fmt: skip


def _label(key: tuple[str, str, str], by_side: Sequence[Mapping[tuple[str, str, str], object]]) -> str:
    """The task; with its protocol and metric where the task occurs with others."""
    keys = {other for tasks in by_side for other in tasks if other[0] == key[0]}
    return key[0] if len(keys) == 1 else f"{key[0]} ({key[1]}, {key[2]})"


def _dot(runs: Sequence[TaskResult], published: Mapping[tuple[str, str], float]) -> Dot:
    if not runs:
        return Dot(value=math.nan)
    beside = published_of(runs[0], published)
    if len(runs) > 1:
        return _of_runs([run.main for run in runs], beside)
    return _with_interval(runs[0].main, runs[0].interval, beside)


def _with_interval(value: float, interval: Interval | None, beside: float | None = None) -> Dot:
    if interval is None:
        return Dot(value=value, beside=beside)
    return Dot(value=value, low=interval.low, high=interval.high, beside=beside)


def _of_runs(scores: Sequence[float], beside: float | None = None) -> Dot:
    mean, sd = float(np.mean(scores)), float(np.std(scores, ddof=1))
    return Dot(value=mean, low=mean - sd, high=mean + sd, beside=beside, note=f"mean ± sd of {len(scores)} runs")


def _average(side: Side, name: str) -> Dot:
    means = [run.averages[name] for run in side.runs if name in run.averages]
    if len(means) != 1:
        return _of_runs(means) if means else Dot(value=math.nan)
    return _with_interval(means[0], side.runs[0].average_intervals.get(name))


def _scores(sides: Sequence[Side]) -> list[Node | None]:
    if not any(side.tasks() for side in sides):
        return []
    several = "; of several runs their mean ± standard deviation" if any(len(side.runs) > 1 for side in sides) else ""
    chart = score_chart(sides).tree
    has_published = any(one.get("class") == "hollow" for one in chart.iter())
    caption = f"Scores × 100. Lines are 95 % intervals over a task's items{several}."
    caption += " Hollow marks are published scores." if has_published else ""
    if len(sides) == 1:
        sheet = report_sheet(sides[0].scored, published_scores(sides[0].runs[0].model.name))
    else:
        sheet = side_by_side(sides)
    shown, *notes = sheet.html()
    remarks = {task.notes: None for side in sides for run in side.runs for task in run.tasks if task.notes}
    return [
        figure(chart, caption), scrolling(shown, "Table of scores"), *notes,
        *(node("p", {"class": "soft"}, remark) for remark in remarks),
    ]  # fmt: skip


def side_by_side(sides: Sequence[Side]) -> Sheet:
    """A column a side; published scores of a side in a column of their own where there is one."""
    by_side = [side.tasks() for side in sides]
    published = [published_scores(side.runs[0].model.name) for side in sides]
    rows, averages = [], []
    for key in dict.fromkeys(key for tasks in by_side for key in tasks):
        of_sides = [tasks.get(key, []) for tasks in by_side]
        first = next(runs[0] for runs in of_sides if runs)
        known = [published_of(runs[0], scores) if runs else None
                 for runs, scores in zip(of_sides, published, strict=True)]  # fmt: skip
        cells = ["" if value is None else number(value) for value in known]
        count = f"{first.count:,}" if first.count else ""
        rows.append([*key, count, *(_cell(_dot(runs, {}), runs) for runs in of_sides), *cells])
        for system in dict.fromkeys(name for runs in of_sides for run in runs for name in run.baselines):
            scores = [[run.baselines[system] for run in runs if system in run.baselines] for runs in of_sides]
            shown = (mean_and_sd(one) if one else "" for one in scores)
            rows.append([f"  {system}", "", "", "", *shown, *("" for _ in sides)])
    for name in dict.fromkeys(name for side in sides for name in side.runs[0].averages):
        cells = [_cell(_average(side, name), side.runs) for side in sides]
        averages.append([name, "", "mean", "", *cells, *("" for _ in sides)])
    names = [side.name for side in sides]
    return Sheet(
        headers=["task", "protocol", "metric", "n", *names, *(f"{name}, published" for name in names)],
        rows=[*rows, *averages], text_columns=3, bold_from=len(rows),
    )  # fmt: skip


def _cell(dot: Dot, runs: Sequence[object]) -> str:
    if math.isnan(dot.value):
        return "–"
    if dot.low is None or dot.high is None:
        return number(dot.value)
    return f"{number(dot.value)} ± {number(dot.high - dot.value)}" if len(runs) > 1 else (
        f"{number(dot.value)} ({number(dot.low)} – {number(dot.high)})")  # fmt: skip


# ------------------------------------------------------------------------------------------------- differences
def _differences(sides: Sequence[Side], *, resamples: int, seed: int) -> list[Node | None]:
    content: list[Node | None] = []
    for side in sides[1:]:
        content.append(node("h3", {}, f"{side.name} (B) against {sides[0].name} (A)"))
        try:
            differences = compare(sides[0].scored, side.scored, resamples=resamples, seed=seed)
        except EvaluationError as error:
            content.append(node("p", {}, str(error)))
            continue
        dots = [
            DotRow(label=row.task, dots=[_with_interval(row.b - row.a, row.result.interval if row.result else None)])
            for row in differences
        ]
        chart = dot_chart(dots, [side.name], title=f"{side.name} − {sides[0].name}", axis="B − A, points", zero=True)
        caption = "B − A with its 95 % interval. * marks p < 0.05 after Holm's correction over the tasks of this table."
        shown, *notes = compare_sheet(differences).html()
        content += [figure(chart.tree, caption), scrolling(shown, "Table of differences"), *notes]
    return content


# ------------------------------------------------------------------------------------------------- groups
def _groups(sides: Sequence[Side]) -> list[Node | None]:
    content: list[Node | None] = []
    by_side = [side.tasks() for side in sides]
    for key in dict.fromkeys(key for tasks in by_side for key in tasks):
        metrics = [_means(tasks.get(key, ())) for tasks in by_side]
        names = list(dict.fromkeys(name for one in metrics for name in one if name.startswith(PREFIX)))
        if not names:
            continue
        by = names[0].removeprefix(PREFIX).partition(": ")[0]
        values = {name.partition(": ")[2]: [one.get(name, math.nan) for one in metrics] for name in names}
        groups = {name: scores for name, scores in values.items() if name not in (WORST, GAP)}
        rows = [[name, *map(number, scores)] for name, scores in [*groups.items(), *(
            (name, values[name]) for name in (WORST, GAP) if name in values)]]  # fmt: skip
        dots = [DotRow(label=name, dots=[Dot(value=score) for score in scores]) for name, scores in groups.items()]
        title = f"{key[0]} by {by}"
        chart = dot_chart(dots, [side.name for side in sides], title=title, axis=f"{key[2]} × 100")
        shown = table([by, *(side.name for side in sides)], rows, foot_from=len(groups))
        content += [node("h3", {}, title), figure(chart.tree, f"{title}: {key[2]} × 100"), scrolling(shown, title)]
    return content


def _means(runs: Sequence[TaskResult]) -> dict[str, float]:
    """Every metric's mean over the runs."""
    return {name: float(np.mean([run.metrics.get(name, math.nan) for run in runs]))
            for name in dict.fromkeys(name for run in runs for name in run.metrics)}  # fmt: skip


# ------------------------------------------------------------------------------------------------- geometry
def _geometry(sides: Sequence[Side]) -> list[Node | None]:
    content: list[Node | None] = []
    by_side = [side.tasks(geometry=True) for side in sides]
    for key in dict.fromkeys(key for tasks in by_side for key in tasks):
        figures = {side.name: _means(tasks[key]) for side, tasks in zip(sides, by_side, strict=True) if key in tasks}
        names = dict.fromkeys(name for one in figures.values() for name in one)
        rows = [[name.replace("_", " "), *(f"{one.get(name, math.nan):.4g}" for one in figures.values())]
                for name in names]  # fmt: skip
        content += [node("h3", {}, key[0]), scrolling(table(["figure", *figures], rows), key[0])]
        if all({"alignment", "uniformity"} <= set(one) for one in figures.values()):
            content.append(figure(space_chart(figures).tree, "Alignment and uniformity: of both, lower is better "
                                  "(Wang & Isola 2020). A model that brings positives closer and spreads texts further "
                                  "lies nearer to the lower left."))  # fmt: skip
    return content


def space_chart(figures: Mapping[str, Mapping[str, float]]) -> Chart:
    """Models by uniformity and alignment."""
    groups = [
        Points(name=name, places=[(one["uniformity"], one["alignment"])],
               texts=[f"{name}: uniformity {one['uniformity']:.3f}, alignment {one['alignment']:.3f}"])
        for name, one in figures.items()
    ]  # fmt: skip
    return point_chart(groups, title="Alignment and uniformity", x="uniformity", y="alignment", height=220)


# ------------------------------------------------------------------------------------------------- facts
def _failures(sides: Sequence[Side]) -> list[Node | None]:
    rows = [[failure.task, side.name, failure.error]
            for side in sides for run in side.runs for failure in run.failures]  # fmt: skip
    shown = table(["task", "model", "reason"], rows, text_columns=3)
    return [scrolling(shown, "Tasks without a score")] if rows else []


def _identity(side: Side) -> list[Node | None]:
    first = side.runs[0]
    model, started = first.model, asdict(first.provenance)
    seeds = ", ".join(str(run.seed) for run in side.runs)
    encoded = f"{first.texts:,} at {first.texts_per_s:,.0f} a second" if first.texts else ""
    lines = {
        "model": model.name, "source": model.source, "revision": model.revision, "digest": ", ".join(
            dict.fromkeys(run.model.digest for run in side.runs if run.model.digest)),
        "opened by": model.backend, "number format": model.precision, "longest text": model.max_tokens and
        f"{model.max_tokens} tokens", "width": model.width, "similarity": model.similarity,
        "results": f"{len(side.runs)} files" if len(side.runs) > 1 else "", "suite": first.suite,
        "protocols": ", ".join(dict.fromkeys(task.protocol for task in first.tasks)),
        "seed of draws and resamples": seeds, "texts encoded": encoded, "texts cut":
        f"{first.cut:,}, longer than the model reads" if first.cut else "",
        "time": f"{first.wall_s:.1f} s" if first.wall_s else "", **origin(started),
    }  # fmt: skip
    return [node("h3", {}, side.name), facts(lines), versions_of(started)]
