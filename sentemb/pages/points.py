"""Points in the plane: a map of texts, or models by two figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sentemb.pages.charts import Chart, Scale, frame, legend, mark, x_axis, y_axis
from sentemb.pages.elements import node

_WIDTH, _LEFT = 720.0, 64.0
_MOST = 3000  # points of a drawing that a browser still scrolls well


@dataclass(frozen=True, kw_only=True)
class Points:
    """The points of one name, and what each of them is."""

    name: str
    places: Sequence[tuple[float, float]]
    texts: Sequence[str] = ()


def point_chart(
    groups: Sequence[Points], *, title: str, x: str, y: str, height: float = 320.0, size: float = 5.0
) -> Chart:
    """Points by group, each with its text as a tooltip; of more than 3,000 every n-th."""
    total = sum(len(group.places) for group in groups)
    step = max(1, -(-total // _MOST))
    names, top = legend([group.name for group in groups] if len(groups) > 1 else (), _LEFT, 14, _WIDTH)
    top += 22
    bottom = top + height
    across = Scale.of([point_x for group in groups for point_x, _ in group.places], _LEFT + 4, _WIDTH - 16)
    up = Scale.of([point_y for group in groups for _, point_y in group.places], bottom, top)
    drawn = [
        mark(number, across(point_x), up(point_y), group.texts[i] if group.texts else "", size=size)
        for number, group in enumerate(groups)
        for i, (point_x, point_y) in list(enumerate(group.places))[::step]
    ]
    spoken = f"{title}: {total} points" + (f" in {len(groups)} groups" if len(groups) > 1 else "")
    axes = [*x_axis(across, top, bottom, x), *y_axis(up, _LEFT, _WIDTH - 16, y)]
    points = node("g", {"class": "cloud"}, *drawn)
    return Chart(tree=frame(_WIDTH, bottom + 44, spoken, [*axes, *names, points]), description=spoken)
