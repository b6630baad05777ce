"""One whole HTML file: style and script inside, nothing from elsewhere, and a policy that allows only these two."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

from sentemb.pages.elements import Node, node
from sentemb.pages.tables import table


def page(title: str, sections: Sequence[tuple[str, Sequence[Node | None]]], *, below: Sequence[str] = ()) -> str:
    """A document of sections by heading; ``below`` are lines under the title."""
    folder = Path(__file__).parent
    style = "".join((folder / name).read_text(encoding="utf-8") for name in ("charts.css", "page.css"))
    script = (folder / "page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src '{_hash_of(style)}'; script-src '{_hash_of(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = node(
        "head", {},
        node("meta", {"charset": "utf-8"}),
        node("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        node("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        node("meta", {"name": "color-scheme", "content": "light dark"}),
        node("title", {}, title),
        node("link", {"rel": "icon", "href": "data:,"}),
        node("style", {}, style),
    )  # fmt: skip
    links = (node("li", {}, node("a", {"href": f"#part-{i}"}, name)) for i, (name, _) in enumerate(sections))
    header = node(
        "header", {}, node("h1", {}, title), *(node("p", {"class": "soft"}, line) for line in below),
        node("nav", {"aria-label": "Contents"}, node("ul", {}, *links)) if len(sections) > 1 else None,
    )  # fmt: skip
    parts = (
        node("section", {"id": f"part-{i}", "aria-labelledby": f"head-{i}"},
             node("h2", {"id": f"head-{i}"}, name), *content)
        for i, (name, content) in enumerate(sections)
    )  # fmt: skip
    skip = node("a", {"class": "skip", "href": "#content"}, "To the content")
    body = node("body", {}, skip, header, node("main", {"id": "content"}, *parts), node("script", {}, script))
    return f"<!doctype html>\n{tostring(node('html', {'lang': 'en'}, head, body), encoding='unicode', method='html')}\n"


def figure(chart: Node, caption: str) -> Node:
    """A chart with its caption; on a narrow screen it scrolls sideways, also by the arrow keys."""
    return node("figure", {}, scrolling(chart, caption), node("figcaption", {}, caption))


def scrolling(wide: Node, name: str) -> Node:
    """What is wide, in a box that scrolls sideways."""
    return node("div", {"class": "scroll", "tabindex": "0", "role": "group", "aria-label": name}, wide)


def facts(lines: Mapping[str, object]) -> Node:
    """Names with what they are; those that are None or empty are left out."""
    pairs = ((name, str(value)) for name, value in lines.items() if value not in (None, ""))
    return node("dl", {}, *(part for name, value in pairs for part in (node("dt", {}, name), node("dd", {}, value))))


def details(summary: str, *children: Node | None) -> Node:
    """What opens on demand."""
    return node("details", {}, node("summary", {}, summary), *children)


def origin(started: Mapping[str, Any]) -> dict[str, object]:
    """What a file says of how a program ran (``Provenance``), as lines for ``facts``."""
    return {
        "begun": started.get("started"), "command": " ".join(map(str, started.get("command") or ())),
        "system": started.get("system"),
        "processor": " ".join(str(started[key]) for key in ("processor", "capability") if started.get(key)),
        "threads": started.get("threads"), "GPU": started.get("gpu"), "Python": started.get("python"),
    }  # fmt: skip


def versions_of(started: Mapping[str, Any]) -> Node | None:
    """Its packages, to be opened on demand."""
    rows = [[name, str(version)] for name, version in dict(started.get("versions") or {}).items()]
    return details("Versions", table(["package", "version"], rows, text_columns=2)) if rows else None


def _hash_of(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
