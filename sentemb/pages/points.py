"""Points in the plane: a map of texts, or models by two figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sentemb.pages.charts import Chart, Scale, mark, plane
from sentemb.pages.elements import Node, node

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
    points = [point for group in groups for point in group.places]
    step = max(1, -(-len(points) // _MOST))

    def draw(across: Scale, up: Scale) -> list[Node]:
        return [node("g", {"class": "cloud"}, *(
            mark(number, across(point_x), up(point_y), group.texts[i] if group.texts else "", size=size)
            for number, group in enumerate(groups)
            for i, (point_x, point_y) in list(enumerate(group.places))[::step]
        ))]  # fmt: skip

    spoken = f"{title}: {len(points)} points" + (f" in {len(groups)} groups" if len(groups) > 1 else "")
    return plane(draw, [point[0] for point in points], [point[1] for point in points], [group.name for group in groups],
                 spoken=spoken, x=x, y=y, height=height)
