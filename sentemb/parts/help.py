"""What a part says of itself: facts out of its docstring, a JSON schema for editors."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentemb.parts.part import Part
from sentemb.parts.rooms import room
from sentemb.parts.settings import adapter, settings_of

REFERENCE = "part reference"  # for "$ref" while pydantic makes a schema: it refuses references to what it has not made
_TITLES = ("Args", "Returns", "Raises", "Source", "Deviations", "Attributes", "Example")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a part's docstring and class say."""

    summary: str
    body: str  # what follows the summary: the formula, indented, and prose
    formula: str
    settings: Mapping[str, str]  # name -> what ``Args`` says of it
    source: str
    deviations: str
    location: str  # file:line, relative to the current folder where it lies below it


def describe(cls: type) -> Facts:
    """The facts of a part."""
    settings: dict[str, str] = {}
    for base in reversed(cls.__mro__):  # a base class explains the settings that it brings
        if issubclass(base, Part):
            settings |= _arguments(_sections(base).get("Args", []))
    sections = _sections(cls)
    summary, *body = sections[""] or [""]
    return Facts(
        summary=summary,
        body="\n".join(body).strip("\n"),
        formula="\n".join(line[4:] for line in body if line.startswith("    ")),
        settings=settings,
        source=" ".join(map(str.strip, sections.get("Source", []))).strip(),
        deviations=" ".join(map(str.strip, sections.get("Deviations", []))).strip(),
        location=_location(cls),
    )


def _location(cls: type) -> str:
    """Where a class stands; of one that was written in a notebook's cell or a shell, its module alone."""
    try:
        file = Path(inspect.getsourcefile(cls) or "?").resolve()
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return cls.__module__
    return f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}:{line}"


def _sections(cls: type) -> dict[str, list[str]]:
    """A docstring's lines by the title above them."""
    lines: list[str] = []
    sections = {"": lines}
    for line in inspect.cleandoc(cls.__doc__ or "").splitlines():
        title = next((word for word in _TITLES if line.startswith(f"{word}:")), None)
        if title is None:
            lines.append(line)
        else:
            sections[title] = lines = [line[len(title) + 1 :]]
    return sections


def _arguments(lines: list[str]) -> dict[str, str]:
    """``Args`` by name; ``a, b: text`` says the same of both."""
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        before, colon, after = line.strip().partition(":")
        words = [word.strip() for word in before.split(",")]
        if colon and all(word.isidentifier() for word in words):
            names = words
            texts.update(dict.fromkeys(names, after.strip()))
        else:
            texts.update((name, f"{texts[name]} {line.strip()}") for name in names)
    return texts


def schema_of(name: str) -> dict[str, Any]:
    """JSON schema of one table of a room; parts inside parts are references ``#/$defs/ROOM``."""
    tables = [schema_of_class(cls, use) for use, cls in room(name).classes().items()]
    foreign = {"type": "string", "pattern": r"^[\w.]+:[\w.]+$", "description": "a part of your own"}
    title = "package.module:Class"
    tables.append({"type": "object", "properties": {"use": foreign}, "required": ["use"], "title": title})
    return {"anyOf": tables}


def schema_of_class(cls: type[Part], use: str | None = None) -> dict[str, Any]:
    """JSON schema of the table that makes a part; ``use`` is its name, which plain settings do not have."""
    schema: dict[str, Any] = json.loads(json.dumps(unlinked_schema(cls, use)).replace(f'"{REFERENCE}":', '"$ref":'))
    return schema


def unlinked_schema(cls: type[Part], use: str | None = None) -> dict[str, Any]:
    """``schema_of_class`` with ``REFERENCE`` in place of references."""
    facts, known = describe(cls), settings_of(cls)
    settings = {
        name: {**adapter(setting.annotation).json_schema(), "description": facts.settings.get(name, "")}
        for name, setting in known.items()
    }
    marks = {name: adapter(kind).json_schema() for name, kind in cls.marks.items()}
    named = {"use": {"const": use}} if use else {}
    return {
        "type": "object",
        "title": use or cls.__name__,
        "description": facts.summary,
        "properties": {**named, **settings, **marks},
        "required": [*named, *(name for name, setting in known.items() if setting.is_required)],
        "additionalProperties": False,
    }
