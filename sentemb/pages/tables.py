"""Tables, and pieces of a page for a notebook's cell."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import tostring

from sentemb.pages.elements import Node, node


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1, foot_from: int | None = None,
    caption: str = "",
) -> Node:
    """A table whose first column names the rows; a page lets its readers sort it.

    Args:
        text_columns: leading columns of words; the others are numbers and stand at the right.
        foot_from: the first row of those that stay at the end, such as averages.
    """
    end = len(rows) if foot_from is None else min(foot_from, len(rows))
    parts = [node("thead", {}, node("tr", {}, *(
        node("th", {"scope": "col", "class": None if column < text_columns else "number"}, header)
        for column, header in enumerate(headers)
    )))]  # fmt: skip
    for tag, part in (("tbody", rows[:end]), ("tfoot", rows[end:])):
        if part:
            parts.append(node(tag, {}, *(_row(cells, text_columns) for cells in part)))
    return node("table", {}, node("caption", {}, caption) if caption else None, *parts)


def _row(cells: Sequence[str], text_columns: int) -> Node:
    first = node("th", {"scope": "row", "class": "below" if cells[0].startswith("  ") else None}, cells[0].strip())
    others = (
        node("td", {"class": None if column < text_columns else "number"}, cell)
        for column, cell in enumerate(cells[1:], start=1)
    )
    return node("tr", {}, first, *others)


def fragment(*nodes: Node | None) -> str:
    """HTML for a notebook's cell."""
    return "".join(tostring(one, encoding="unicode", method="html") for one in nodes if one is not None)
