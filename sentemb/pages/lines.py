"""Curves over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sentemb.pages.charts import SERIES, Chart, Scale, frame, legend, mark, rule, text_at, x_axis, y_axis
from sentemb.pages.elements import Node, node

_WIDTH, _HEIGHT, _LEFT = 720.0, 240.0, 64.0
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
    names, top = legend([line.name for line in lines] if len(lines) > 1 else (), _LEFT, 14, _WIDTH)
    top += 22
    bottom = top + _HEIGHT
    across = Scale.of([step for line in lines for step, _ in line.points], _LEFT + 4, _WIDTH - 16)
    up = Scale.of(values, bottom, top, is_log=is_log)
    drawn = [one for number, line in enumerate(lines) for one in _curve(number, line, across, up)]
    if chosen is not None:
        chosen_x = across(chosen)
        is_right = chosen_x > _WIDTH / 2
        label = text_at(chosen_x + (-6 if is_right else 6), top + 12, f"chosen: {x} {chosen:g}",
                        anchor="end" if is_right else "start")  # fmt: skip
        drawn += [rule("zero", chosen_x, top, chosen_x, bottom), label]
    spoken = f"{title}: {axis} over {x}"
    if len(lines) > 1:
        spoken += f", of {', '.join(line.name for line in lines)}"
    axes = [*x_axis(across, top, bottom, x, is_counted=True), *y_axis(up, _LEFT, _WIDTH - 16, axis)]
    return Chart(tree=frame(_WIDTH, bottom + 44, spoken, [*axes, *names, *drawn]), description=spoken)


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most ``most`` points, evenly chosen, with the first and the last one."""
    if len(points) <= most:
        return list(points)
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def _curve(number: int, line: Line, across: Scale, up: Scale) -> list[Node]:
    points, pieces = thinned(line.points, _MOST), [[]]  # type: ignore[var-annotated]
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
