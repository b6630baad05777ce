"""What every chart shares: its frame, its ticks, the marks of series, and how it leaves sentemb."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import tostring

from sentemb.files import write_text
from sentemb.pages.elements import Node, node

LETTER = 6.6  # mean width of a letter of the charts' 12 px type
WIDTH, _LEFT = 720.0, 64.0
SERIES = 6  # colours, marks and dashes before they recur
_LONGEST = 34  # letters of a label


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with its description for those who do not see it. A notebook shows it; ``save`` writes an SVG file."""

    tree: Node  # an svg element
    description: str

    def svg(self) -> str:
        """A whole SVG document, on white paper so that it can be read on any background."""
        style = (Path(__file__).parent / "charts.css").read_text(encoding="utf-8")
        paper = node("rect", {"width": "100%", "height": "100%", "fill": "#fff"})
        whole = node("svg", self.tree.attrib, node("style", {}, style), paper, *self.tree)
        whole.set("xmlns", "http://www.w3.org/2000/svg")
        return tostring(whole, encoding="unicode")

    def save(self, path: str | Path) -> Path:
        """Write an SVG file; returns its path."""
        write_text(Path(path), self.svg())
        return Path(path)

    def _repr_svg_(self) -> str:
        return self.svg()

    def __repr__(self) -> str:
        return f"Chart({self.description!r})"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values onto places of an axis."""

    low: float
    high: float
    start: float  # where ``low`` lies
    end: float
    is_log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float, *, is_log: bool = False) -> Scale:
        """From the least to the largest finite value with a little room; 0 to 1 where there is none."""
        finite = [math.log10(value) if is_log else value for value in values if math.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
        return cls(low=low - room, high=high + room, start=start, end=end, is_log=is_log)

    def __call__(self, value: float) -> float:
        scaled = math.log10(value) if self.is_log else value
        return round(self.start + (scaled - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self, wanted: int = 6) -> list[tuple[float, str]]:
        """Round values and how they are written."""
        if self.is_log and self.high - self.low > 1:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            return [(10.0**power, f"{10.0**power:g}") for power in powers]
        low, high = (10**self.low, 10**self.high) if self.is_log else (self.low, self.high)
        rough = (high - low) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * times for times in (1, 2, 2.5, 5, 10) if power * times >= rough * 0.999)
        values = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
        return [(value, f"{round(value, 10) + 0.0:.6g}") for value in values]


def frame(width: float, height: float, title: str, children: Sequence[Node | None]) -> Node:
    """The svg element: an image with a name to a screen reader."""
    return node(
        "svg", {"class": "sentemb-chart", "viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": title,
                "width": f"{width:g}", "height": f"{height:g}"},
        node("title", {}, title), *children,
    )  # fmt: skip


def text_at(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "label") -> Node:
    """A line of type; a long one is shortened, and whole in its tooltip."""
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    tooltip = node("title", {}, text) if shown != text else None
    return node("text", {"class": kind, "x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}, shown, tooltip)


def width_of(texts: Sequence[str]) -> float:
    """About what the longest text takes."""
    return LETTER * max((min(len(text), _LONGEST) for text in texts), default=0)


def rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> Node:
    """A straight line."""
    return node("line", {"class": kind, "x1": f"{x1:g}", "y1": f"{y1:g}", "x2": f"{x2:g}", "y2": f"{y2:g}"})


def mark(series: int, x: float, y: float, tooltip: str = "", *, size: float = 4.5) -> Node:
    """A series' mark: form and colour differ, so that neither alone must be told apart."""
    s = size
    corners = [
        [], [(-s, -s), (s, -s), (s, s), (-s, s)], [(0, -s * 1.3), (s * 1.2, s), (-s * 1.2, s)],
        [(0, -s * 1.4), (s * 1.4, 0), (0, s * 1.4), (-s * 1.4, 0)], [(0, s * 1.3), (s * 1.2, -s), (-s * 1.2, -s)],
        [(-s, -s / 2), (0, -s * 1.3), (s, -s / 2), (s, s), (-s, s)],
    ][series % SERIES]  # fmt: skip
    title = node("title", {}, tooltip) if tooltip else None
    kind = f"mark s{series % SERIES}"
    if not corners:
        return node("circle", {"class": kind, "cx": f"{x:g}", "cy": f"{y:g}", "r": f"{s:g}"}, title)
    return node("polygon", {"class": kind, "points": " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners)}, title)


def legend(names: Sequence[str], x: float, y: float, width: float) -> tuple[list[Node], float]:
    """Marks with names in rows from (x, y) on, and where the next thing may begin."""
    nodes: list[Node] = []
    left = x
    for series, name in enumerate(names):
        needed = width_of([name]) + 26
        if left > x and left + needed > width:
            left, y = x, y + 18
        nodes += [mark(series, left + 5, y), text_at(left + 14, y + 4, name)]
        left += needed
    return nodes, y + (18 if names else 0)


def x_axis(scale: Scale, top: float, bottom: float, title: str, *, is_counted: bool = False) -> list[Node]:
    """Ticks under a chart with rules up through it; of what is counted, such as steps, only at whole numbers."""
    nodes = []
    for value, shown in scale.ticks():
        if is_counted and not float(shown).is_integer():
            continue
        nodes += [rule("grid", scale(value), top, scale(value), bottom),
                  text_at(scale(value), bottom + 16, shown, anchor="middle", kind="tick")]  # fmt: skip
    middle = (scale.start + scale.end) / 2
    return [*nodes, text_at(middle, bottom + 34, title, anchor="middle", kind="tick")]


def _y_axis(scale: Scale, left: float, right: float, title: str) -> list[Node]:
    """Ticks left of a chart with rules through it; the title lies over it."""
    nodes = []
    for value, shown in scale.ticks(5):
        nodes += [rule("grid", left, scale(value), right, scale(value)),
                  text_at(left - 6, scale(value) + 4, shown, anchor="end", kind="tick")]  # fmt: skip
    return [*nodes, text_at(left, min(scale.start, scale.end) - 8, title, kind="tick")]


def plane(
    draw: Callable[[Scale, Scale], Sequence[Node]], xs: Sequence[float], ys: Sequence[float], series: Sequence[str], *,
    spoken: str, x: str, y: str, height: float, is_log: bool = False, is_counted: bool = False,
) -> Chart:
    """What ``draw`` makes of the two scales, with an axis under it and one at its left, and a legend of several series
    over it. ``spoken`` describes it."""
    names, top = legend(series if len(series) > 1 else (), _LEFT, 14, WIDTH)
    top += 22
    bottom = top + height
    across, up = Scale.of(xs, _LEFT + 4, WIDTH - 16), Scale.of(ys, bottom, top, is_log=is_log)
    axes = [*x_axis(across, top, bottom, x, is_counted=is_counted), *_y_axis(up, _LEFT, WIDTH - 16, y)]
    tree = frame(WIDTH, bottom + 44, spoken, [*axes, *names, *draw(across, up)])
    return Chart(tree=tree, description=spoken)
