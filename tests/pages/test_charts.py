"""Charts: places worked by hand, what is not drawn, and that nothing a user wrote becomes markup."""

from __future__ import annotations

import math
from xml.etree.ElementTree import fromstring

import pytest

from sentemb.pages import Dot, DotRow, Line, Points, dot_chart, fragment, line_chart, node, page, point_chart, table
from sentemb.pages.charts import Scale
from sentemb.pages.lines import thinned

HOSTILE = "<script>document.title='broken in'</script>\" onload=\"x\x00\ud800 & ]]>"
SVG = "{http://www.w3.org/2000/svg}"


def marks(chart, kind="mark"):
    return [one for one in fromstring(chart.svg()).iter() if kind in one.get("class", "").split()]


def test_a_scale_by_hand():
    scale = Scale(low=0.0, high=10.0, start=100.0, end=200.0)
    assert [scale(0), scale(5), scale(10)] == [100, 150, 200]
    assert [value for value, _ in scale.ticks(5)] == [0, 2, 4, 6, 8, 10]
    up = Scale(low=-1.0, high=3.0, start=100.0, end=0.0, is_log=True)
    assert up(10) == 50
    assert [shown for _, shown in up.ticks()] == ["0.1", "1", "10", "100", "1000"]


@pytest.mark.parametrize("values", [[], [math.nan], [3.0], [0.0, 0.0], [-1e-9, 1e-9], [1e12, 2e12]])
def test_any_values_have_a_scale_with_ticks(values):
    scale = Scale.of(values, 0.0, 100.0)
    assert scale.high > scale.low
    assert 1 <= len(scale.ticks()) <= 12


def test_dots_intervals_and_published_scores():
    rows = [DotRow(label="A", dots=[Dot(value=10, low=8, high=12, beside=11), Dot(value=math.nan)]),
            DotRow(label="B", dots=[Dot(value=20), Dot(value=15)])]  # fmt: skip
    chart = dot_chart(rows, ["one", "two"], title="Scores", axis="points", beside="published")
    legend = 2
    assert len(marks(chart)) == legend + 3
    assert len(marks(chart, "interval")) == 1
    assert len(marks(chart, "hollow")) == 1 + 1
    (interval,) = marks(chart, "interval")
    dot = next(one for one in marks(chart) if "one, A: 10.00 (8.00 to 12.00)" in "".join(one.itertext()))
    x = float(dot.get("cx"))
    assert float(interval.get("x1")) < x < float(interval.get("x2"))
    assert math.isclose(x, (float(interval.get("x1")) + float(interval.get("x2"))) / 2, abs_tol=0.2)


def test_a_curve_breaks_where_it_is_not_finite_and_long_ones_are_thinned():
    points = [(1, 1.0), (2, 2.0), (3, math.nan), (4, 2.0), (5, 1.0)]
    chart = line_chart([Line(name="loss", points=points)], title="Loss", axis="loss", chosen=4)
    assert len(marks(chart, "curve")) == 2
    assert "chosen: step 4" in chart.svg()
    ticks = [one.text for one in fromstring(chart.svg()).iter() if one.get("class") == "tick"]
    assert {"1", "2", "3", "4", "5"} <= set(ticks)
    assert "2.5" not in ticks[: ticks.index("step")]
    long = thinned([(i, float(i)) for i in range(10_001)], 400)
    assert (len(long), long[0][0], long[-1][0]) == (400, 0, 10_000)


def test_points_are_limited():
    chart = point_chart([Points(name="x", places=[(i, -i) for i in range(7000)])], title="Map", x="x", y="y")
    assert 2000 < len(marks(chart)) <= 3000


@pytest.mark.parametrize("chart", [
    dot_chart([DotRow(label=HOSTILE, dots=[Dot(value=1, note=HOSTILE), Dot(value=2)])], [HOSTILE, "b"], title=HOSTILE,
              axis=HOSTILE),
    line_chart([Line(name=HOSTILE, points=[(1, 1)]), Line(name="b", points=[])], title=HOSTILE, axis=HOSTILE),
    point_chart([Points(name=HOSTILE, places=[(0, 0)], texts=[HOSTILE])], title=HOSTILE, x=HOSTILE, y=HOSTILE),
])  # fmt: skip
def test_what_a_user_wrote_is_text(chart, tmp_path):
    tree = fromstring(chart.save(tmp_path / "chart.svg").read_text(encoding="utf-8"))
    allowed = {"svg", "title", "text", "line", "rect", "circle", "polygon", "polyline", "g", "style"}
    assert {one.tag.removeprefix(SVG) for one in tree.iter()} <= allowed
    assert not [name for one in tree.iter() for name in one.attrib if name.startswith("on")]
    assert tree.get("role") == "img"
    assert "script" in tree.get("aria-label")


def test_tables_and_pages_escape_and_have_their_landmarks():
    cells = table([HOSTILE, "n"], [[HOSTILE, "1"], ["  below", "2"]], foot_from=2, caption=HOSTILE)
    html = page(HOSTILE, [(HOSTILE, [cells, node("p", {"title": HOSTILE}, HOSTILE)]), ("two", [])], below=[HOSTILE])
    assert html.count("<script>") == 1  # the page's own
    assert "&lt;script&gt;" in html
    for landmark in ("<main", "<header", "<nav", '<html lang="en">', 'scope="row"', 'scope="col"', "<caption>"):
        assert landmark in html
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html
    assert "<script>" not in fragment(cells)
