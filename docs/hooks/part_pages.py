"""A page for every kind of part, a section for every part: from docstrings and settings, as of ``sentemb show``."""

from __future__ import annotations

import functools
import inspect
import posixpath
from collections.abc import Iterator
from pathlib import Path

from recipe_pages import recipes, used_parts
from repository import ROOT, code_uri
from tables import code, table

from sentemb.parts import ROOMS, Part, Room, Setting, describe, settings_of, spell
from sentemb.parts.settings import shown

_GROUPS = {
    "Data": ("sources", "makers", "turns", "batches"),
    "Views, tables, losses": ("views", "copies", "companions", "edits", "terms"),
    "Encoder": ("poolings", "heads", "adapters"),
    "Training": ("optimizers", "schedules", "callbacks"),
    "Search and mining": ("kinds", "mining_sources", "mining_rules"),
    "Scoring": ("tasks", "classifiers", "rerank_losses"),
}
_HEAD = """# Parts

Everything that a recipe, a suite or a flag names is a *part*: a class with typed settings. These pages are made of the
parts' own docstrings; `sentemb show NAME` prints the same, and `sentemb list KIND` lists a kind.
[Write your own part](../../own-parts.md) adds to each kind without a change of sentemb."""


@functools.cache
def parts_of(room: Room) -> dict[str, type[Part]]:
    """The parts that come with sentemb; installed packages may add others."""
    return {name: cls for name, cls in room.classes().items() if cls.__module__.startswith("sentemb.")}


def uri_of(room: str) -> str:
    """The address of a kind's page."""
    return f"reference/parts/{room}.md"


def file_of(cls: type) -> str:
    """The file of a class, relative to the repository."""
    return Path(inspect.getsourcefile(cls) or "?").resolve().relative_to(ROOT).as_posix()


def code_files() -> set[str]:
    """Files that the parts' sections link to."""
    return {file_of(cls) for room in ROOMS.values() for cls in parts_of(room).values()}


def navigation() -> list[dict[str, list[dict[str, str]]]]:
    """The kinds by group, for the site's menu; a kind that no group has comes last."""
    listed = {name for names in _GROUPS.values() for name in names}
    others = tuple(name for name in ROOMS if name not in listed)
    groups = {**_GROUPS, **({"Others": others} if others else {})}
    return [{group: [{_title(name): uri_of(name)} for name in names]} for group, names in groups.items()]


def pages() -> Iterator[tuple[str, str]]:
    """Address and text of every page."""
    links = {name: f"[{_title(name)}]({name}.md)" for name in ROOMS}
    rows = ([links[name], _summary(room), str(len(parts_of(room)))] for name, room in ROOMS.items())
    kinds = table(["kind", "what it is, and where it is named", "parts"], rows)
    yield "reference/parts/index.md", f"{_HEAD}\n\n{kinds}\n"
    for room in ROOMS.values():
        yield uri_of(room.name), _page(room)


def _page(room: Room) -> str:
    summary = _summary(room)
    rows = ([f"[`{name}`](#{name})", describe(cls).summary.rstrip(":")] for name, cls in parts_of(room).items())
    pieces = [f"# {_title(room.name)}", f"{summary[0].upper()}{summary[1:]}.", table(["part", ""], rows)]
    for name, cls in parts_of(room).items():
        pieces += list(_section(name, cls, uri_of(room.name)))
    return "\n\n".join(pieces) + "\n"


def _title(room: str) -> str:
    return room.replace("_", " ").capitalize()


def _summary(room: Room) -> str:
    """A kind's line, with what follows its colon (where it is named) set as code."""
    what, colon, where = room.summary.partition(": ")
    return f"{what}{colon}{code(where)}"


def _section(name: str, cls: type[Part], uri: str) -> Iterator[str]:
    facts, file, line = describe(cls), file_of(cls), inspect.getsourcelines(cls)[1]
    yield f"## `{name}` {{ #{name} }}"
    yield facts.summary
    if facts.body:
        yield facts.body
    settings = settings_of(cls)
    if settings:
        rows = (
            [code(key), code(spell(setting.annotation)), _default(setting), facts.settings.get(key, "")]
            for key, setting in settings.items()
        )
        yield table(["setting", "type", "default", ""], rows)
    if facts.source:
        yield f"**Source**: {facts.source}"
    if facts.deviations:
        yield f"**Deviations**: {facts.deviations}"
    if users := _users().get(cls):
        yield "**Recipes with it**: " + ", ".join(f"[{recipe}](../recipes.md#{recipe})" for recipe in users)
    # as HTML: mkdocs does not know the anchors of code lines, and would warn
    address = posixpath.relpath(code_uri(file), posixpath.dirname(uri)).removesuffix(".md")
    link = f'<a href="{address}.html#__codelineno-0-{line}"><code>{file}:{line}</code></a>'
    yield f"**Code**: {link}, class `{cls.__name__}`"


def _default(setting: Setting) -> str:
    if setting.is_required:
        return "required"
    return "none" if setting.default in (None, (), {}) else code(shown(setting.default))


@functools.cache
def _users() -> dict[type, list[str]]:
    """Part -> names of the shipped recipes that name it."""
    users: dict[type, list[str]] = {}
    for name, recipe in recipes().items():
        for cls in dict.fromkeys(type(part) for part in used_parts(recipe)):
            users.setdefault(cls, []).append(name)
    return users
