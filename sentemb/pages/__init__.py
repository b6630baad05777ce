"""Pages for a browser, and charts for pages and notebooks, without a library."""

from sentemb.pages.charts import Chart
from sentemb.pages.dots import Dot, DotRow, dot_chart
from sentemb.pages.elements import Node, node
from sentemb.pages.lines import Line, line_chart
from sentemb.pages.page import page
from sentemb.pages.points import Points, point_chart
from sentemb.pages.tables import fragment, table

__all__ = [
    "Chart", "Dot", "DotRow", "Line", "Node", "Points", "dot_chart", "fragment", "line_chart", "node", "page",
    "point_chart", "table",
]  # fmt: skip
