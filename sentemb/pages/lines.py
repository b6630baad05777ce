"""Curves over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sentemb.pages.charts import SERIES, WIDTH, Chart, Scale, mark, plane, rule, text_at
from sentemb.pages.elements import Node, node

_HEIGHT = 240.0
_MOST = 400  # points of a curve: more than there are pixels between two of them
_MARKED = 40  # a curve of at most so many points shows each of them


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve's points; one that is not finite breaks it."""

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(
    lines: Sequence[Line], *, title: str, axis: str, x: str = "step", chosen: float | None = None, is_log: bool = False
) -> Chart:
    """Curves by name.

    Args:
        axis: what the curves' values are.
        x: what is under the chart.
        chosen: a place on that axis with a rule, such as the step of the chosen checkpoint.
        is_log: on a logarithmic axis where all values allow it.
    """
    values = [value for line in lines for _, value in line.points if math.isfinite(value)]
    is_log = is_log and bool(values) and min(values) > 0
    steps, names = [step for line in lines for step, _ in line.points], [line.name for line in lines]

    def draw(across: Scale, up: Scale) -> list[Node]:
        drawn = [one for number, line in enumerate(lines) for one in _curve(number, line, across, up)]
        return drawn if chosen is None else [*drawn, *_chosen(across(chosen), up, f"chosen: {x} {chosen:g}")]

    spoken = f"{title}: {axis} over {x}" + (f", of {', '.join(names)}" if len(names) > 1 else "")
    return plane(draw, steps, values, names, spoken=spoken, x=x, y=axis, height=_HEIGHT, is_log=is_log, is_counted=True)


def _chosen(x: float, up: Scale, text: str) -> list[Node]:
    """A rule with its name at the side where there is room."""
    is_right = x > WIDTH / 2
    label = text_at(x + (-6 if is_right else 6), up.end + 12, text, anchor="end" if is_right else "start")
    return [rule("zero", x, up.end, x, up.start), label]


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most ``most`` points, evenly chosen, with the first and the last one."""
    if len(points) <= most:
        return list(points)
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def _curve(number: int, line: Line, across: Scale, up: Scale) -> list[Node]:
    points = thinned(line.points, _MOST)
    pieces: list[list[tuple[float, float]]] = [[]]
    for step, value in points:
        if math.isfinite(value):
            pieces[-1].append((step, value))
        elif pieces[-1]:
            pieces.append([])
    nodes = [
        node("polyline", {"class": f"curve s{number % SERIES}",
                          "points": " ".join(f"{across(step):g},{up(value):g}" for step, value in piece)})
        for piece in pieces if len(piece) > 1
    ]  # fmt: skip
    if len(points) <= _MARKED:
        nodes += [mark(number, across(step), up(value), f"{line.name}, {step:g}: {value:.5g}", size=3)
                  for piece in pieces for step, value in piece]  # fmt: skip
    return nodes
