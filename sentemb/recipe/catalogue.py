"""What there is to choose from, in words and as a JSON schema: the parts of every room, recipes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sentemb.errors import MissingExtra, PartError, RecipeError, did_you_mean, first_line
from sentemb.parts import ROOMS, Part, describe, room, schema_of, settings_of, spell
from sentemb.parts.help import schema_of_class
from sentemb.parts.settings import shown
from sentemb.recipe.load import read_tree, shipped_recipes

if TYPE_CHECKING:
    from sentemb.recipe.recipe import Recipe

KINDS = {**{name: entry.summary for name, entry in ROOMS.items()}, "recipes": "recipes that come with sentemb"}


def catalogue(kind: str) -> dict[str, str]:
    """Name -> one line, for one of ``KINDS``.

    Raises:
        RecipeError: there is no such kind.
    """
    if kind == "recipes":
        return {name: _line(read_tree(name)[0]) for name in shipped_recipes()}
    if kind not in ROOMS:
        raise RecipeError(f'"{kind}" cannot be listed{did_you_mean(kind, KINDS)}')
    return {name: _summary(kind, name) for name in room(kind).names()}


def _summary(kind: str, name: str) -> str:
    try:
        return describe(room(kind).find(name)).summary
    except (ImportError, MissingExtra) as error:
        return f"(cannot be used here: {first_line(error)})"


def _line(tree: Mapping[str, Any]) -> str:
    scores = _scores(tree.get("expected", {}))
    return f"{tree['source']}  [published: {scores}]" if scores else str(tree["source"])


def _scores(expected: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score}" for name, score in expected.items())


def find_parts(name: str) -> list[tuple[str, type[Part]]]:
    """(room, class) of every part of that name: ``info_nce``, ``terms/info_nce``, ``package.module:Class``.

    Raises:
        PartError: a part of one's own cannot be imported, or inherits no room's base class.
    """
    chosen, slash, short = name.rpartition("/")
    matches, faults = [], []
    for where in (chosen,) if chosen in ROOMS else () if slash else ROOMS:
        if ":" in short or short in room(where).names():
            try:
                matches.append((where, room(where).find(short)))
            except PartError as error:
                faults.append(error)
    if faults and not matches:
        raise faults[0]
    return matches


def recipe_lines(recipe: Recipe) -> Iterator[str]:
    """A recipe resolved: every part in the order in which data flow through them, in a screen or two."""
    yield recipe.name
    facts = {"source": recipe.source, "expected": _scores(recipe.expected), "note": recipe.note}
    for label, text in {**facts, "hash": recipe.hash[:16]}.items():
        if text:
            yield f"  {label:<8}  {text}"
    encoder = recipe.encoder
    pooling = "" if encoder.pooling else "; pooling as saved with the checkpoint, else mean"
    limit = encoder.max_tokens or "the checkpoint's"
    yield ""
    frozen = "; frozen" if encoder.freeze else ""
    if not isinstance(encoder.freeze, bool):
        frozen += f": {', '.join(encoder.freeze)}"
    yield f"encoder  {encoder.backbone}{pooling}; max tokens {limit}{frozen}"
    for where, part in recipe.parts().items():
        marks = dict(part.given_marks)
        weight = f"{marks.pop('weight'):g} × " if "weight" in marks else ""
        named = f' "{marks.pop("name")}"' if "name" in marks else ""
        yield from _headed_lines(f"{where}  {weight}{room(part.room).name_of(type(part))}{named}", type(part))
        settings = {**part.settings, **marks}.items()
        given = ", ".join(f"{name} = {shown(value)}" for name, value in settings if value not in (None, (), {}, ""))
        yield from _wrapped(f"with {given}," if given else "", f"at {describe(type(part)).location}")
    yield ""
    chosen = recipe.train.changed_settings()
    yield "train  " + (", ".join(f"{key} = {value}" for key, value in chosen.items()) or "all defaults")


def part_lines(where: str, cls: type[Part]) -> Iterator[str]:
    """A part: what it is, and what its settings mean."""
    facts = describe(cls)
    yield from _headed_lines(f"{where}/{room(where).name_of(cls)}", cls)
    if facts.deviations and not facts.deviations.lower().startswith("none"):
        yield from _wrapped("deviates", facts.deviations)
    yield f"    at {facts.location}"
    for name, setting in settings_of(cls).items():
        value = "none" if setting.default in (None, (), {}) else shown(setting.default)
        default = "" if setting.is_required else f", by default {value}"
        yield ""
        yield f"  {name}  ({spell(setting.annotation)}{default})"
        yield from _wrapped("", facts.settings.get(name, ""))


def _headed_lines(heading: str, cls: type[Part]) -> Iterator[str]:
    facts = describe(cls)
    yield f"{heading}: {facts.summary}"
    for line in facts.formula.splitlines():
        yield f"    {line}"
    if facts.source:
        yield from _wrapped("source", facts.source)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label} {text}".strip(), width=110, initial_indent="    ", subsequent_indent="      ")


def recipe_schema() -> dict[str, Any]:
    """Every table, every part, every setting. A recipe that extends another one may leave out what it keeps."""
    from sentemb.recipe.recipe import Recipe

    rooms = [name for name in ROOMS if name not in ("views", "kinds", "mining_sources", "mining_rules")]
    schema = schema_of_class(Recipe)
    properties = schema["properties"]
    copies = properties.pop("copies")
    views = schema_of("views")["anyOf"]
    for entry in views:
        entry["properties"]["copies"] = copies
    extended = {"type": "object", "not": {"required": ["use"]}, "title": "further settings of the extended recipe's"}
    properties["views"] = {"anyOf": [*views, extended]}
    properties["data"] = {"anyOf": [*schema_of("sources")["anyOf"], extended]}
    keys = {"encoder": "backbone", "data": "use", "views": "use"}
    required = {name: {"required": [key]} for name, key in keys.items()}
    del properties["encoder"]["required"]
    return {
        **schema,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sentemb recipe",
        "properties": {
            **properties,
            "extends": {"type": "string", "description": "a recipe that this one builds on: name or path"},
            "clear": {"type": "array", "items": {"enum": sorted(properties)}, "description": "tables that it drops"},
        },
        "required": [],
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": schema["required"], "properties": required},
        "$defs": {name: schema_of(name) for name in rooms},
    }
