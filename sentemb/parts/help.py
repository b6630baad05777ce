"""What a part says of itself: facts out of its docstring, a JSON schema for editors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentemb.parts.part import Part, room
from sentemb.parts.settings import adapter, settings_of

_TITLES = ("Args:", "Returns:", "Raises:", "Source:", "Deviations:", "Attributes:", "Example:")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a part's docstring and class say."""

    summary: str
    formula: str
    settings: Mapping[str, str]  # name -> what ``Args`` says of it
    source: str
    deviations: str
    location: str  # file:line


def describe(cls: type) -> Facts:
    """The facts of a part."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines()
    sections = dict(_sections(lines[1:]))
    text = {title: " ".join(line.strip() for line in section).strip() for title, section in sections.items()}
    return Facts(
        summary=lines[0] if lines else "",
        formula="\n".join(line[4:] for line in sections[""] if line.startswith("    ")),
        settings=_arguments(sections.get("Args", [])),
        source=text.get("Source", ""),
        deviations=text.get("Deviations", ""),
        location=location_of(cls),
    )


def location_of(cls: type) -> str:
    """``file:line`` of a class, relative to the current folder where it lies below it."""
    file = Path(inspect.getsourcefile(cls) or "?").resolve()
    line = inspect.getsourcelines(cls)[1]
    return f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}:{line}"


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    title, section = "", list[str]()
    for line in lines:
        start = next((word for word in _TITLES if line.startswith(word)), None)
        if start is None:
            section.append(line)
        else:
            yield title, section
            title, section = start[:-1], [line[len(start) :]]
    yield title, section


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
    tables = [_schema_of_class(use, cls) for use, cls in room(name).classes().items()]
    foreign = {"type": "string", "pattern": r"^[\w.]+:[\w.]+$", "description": "a part of your own"}
    title = "package.module:Class"
    tables.append({"type": "object", "properties": {"use": foreign}, "required": ["use"], "title": title})
    return {"anyOf": tables}


def _schema_of_class(use: str, cls: type[Part]) -> dict[str, Any]:
    facts = describe(cls)
    known = settings_of(cls)
    settings = {
        name: {**adapter(setting.annotation).json_schema(), "description": facts.settings.get(name, "")}
        for name, setting in known.items()
    }
    marks = {name: adapter(kind).json_schema() for name, kind in cls.marks.items()}
    return {
        "type": "object",
        "title": use,
        "description": facts.summary,
        "properties": {"use": {"const": use}, **settings, **marks},
        "required": ["use", *(name for name, setting in known.items() if setting.is_required)],
        "additionalProperties": False,
    }
