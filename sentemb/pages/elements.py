"""Elements of HTML and SVG as a tree: what a user wrote can only become text, never markup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias
from xml.etree.ElementTree import Element

Node: TypeAlias = Element

# what XML cannot hold (control characters, halves of surrogate pairs) and a browser would read as something else
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def node(tag: str, attributes: Mapping[str, object] | None = None, *children: Node | str | None) -> Node:
    """``node("p", {"class": "soft"}, "one & ", node("b", {}, "two"))``; what is None is left out."""
    element = Element(tag, {name: clean(str(value)) for name, value in (attributes or {}).items() if value is not None})
    for child in children:
        if isinstance(child, str):
            _add_text(element, clean(child))
        elif child is not None:
            element.append(child)
    return element


def clean(text: str) -> str:
    """The text with a visible sign for every character that no page may hold."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _add_text(element: Node, text: str) -> None:
    if len(element):
        element[-1].tail = (element[-1].tail or "") + text
    else:
        element.text = (element.text or "") + text
