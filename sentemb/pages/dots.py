"""Scores as dots with their intervals, a row a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sentemb.pages.charts import SERIES, WIDTH, Chart, Scale, frame, legend, mark, rule, text_at, width_of, x_axis
from sentemb.pages.elements import Node, node

_STEP, _APART = 14.0, 12.0


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value with its interval; not drawn where it is NaN."""

    value: float
    low: float | None = None
    high: float | None = None
    beside: float | None = None  # a value from elsewhere, drawn as a hollow mark
    note: str = ""  # shown with the dot's tooltip


@dataclass(frozen=True, kw_only=True)
class DotRow:
    """A row's dots, one a series."""

    label: str
    dots: Sequence[Dot]


def dot_chart(
    rows: Sequence[DotRow], series: Sequence[str], *, title: str, axis: str, beside: str = "", zero: bool = False
) -> Chart:
    """Rows from the top; within a row a line a series.

    Args:
        series: names for the legend; a single one has none.
        axis: what the values are.
        beside: what hollow marks are.
        zero: a rule at 0, for differences.
    """
    left = width_of([row.label for row in rows]) + 16
    values = [number for row in rows for dot in row.dots for number in (dot.value, dot.low, dot.high, dot.beside)
              if number is not None]  # fmt: skip
    scale = Scale.of([*values, 0.0] if zero else values, left + 8, WIDTH - 16)
    names, y = legend(series if len(series) > 1 else (), 8, 14, WIDTH)
    has_beside = bool(beside) and any(dot.beside is not None for row in rows for dot in row.dots)
    if has_beside:
        names += [_hollow(13, y, beside), text_at(22, y + 4, beside)]
        y += 18
    top = y
    drawn: list[Node] = []
    for row in rows:
        height = _STEP * max(1, len(row.dots))
        drawn.append(text_at(left, y + _APART / 2 + height / 2 + 4, row.label, anchor="end"))
        for number, dot in enumerate(row.dots):
            middle = y + _APART / 2 + _STEP * (number + 0.5)
            name = f"{series[number]}, " if len(series) > 1 else ""
            drawn += _drawn(dot, number, middle, scale, f"{name}{row.label}", beside)
        y += height + _APART
    zero_rule = rule("zero", scale(0.0), top, scale(0.0), y) if zero else None
    spoken = f"{title}: {len(rows)} rows, {axis}" + (f", of {', '.join(series)}" if len(series) > 1 else "")
    tree = frame(WIDTH, y + 44, spoken, [*x_axis(scale, top, y, axis), zero_rule, *names, *drawn])
    return Chart(tree=tree, description=spoken)


def _drawn(dot: Dot, number: int, y: float, scale: Scale, name: str, beside: str) -> list[Node]:
    nodes: list[Node] = []
    if math.isnan(dot.value):
        return nodes
    tooltip = f"{name}: {dot.value:.2f}"
    if dot.low is not None and dot.high is not None:
        tooltip += f" ({dot.low:.2f} to {dot.high:.2f})"
        nodes.append(rule(f"interval s{number % SERIES}", scale(dot.low), y, scale(dot.high), y))
    if dot.beside is not None:
        nodes.append(_hollow(scale(dot.beside), y, f"{name}, {beside}: {dot.beside:.2f}"))
    return [*nodes, mark(number, scale(dot.value), y, f"{tooltip}{f'; {dot.note}' if dot.note else ''}")]


def _hollow(x: float, y: float, tooltip: str) -> Node:
    points = f"{x:g},{y - 6:g} {x + 6:g},{y:g} {x:g},{y + 6:g} {x - 6:g},{y:g}"
    return node("polygon", {"class": "hollow", "points": points}, node("title", {}, tooltip))
