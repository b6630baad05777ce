"""What there is to choose from: the parts of every room, the recipes, the methods that they carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentemb.errors import MissingExtra, PartError, RecipeError, did_you_mean, first_line
from sentemb.parts import ROOMS, Part, describe, room
from sentemb.recipe.load import read_tree, shipped_recipes

KINDS = {**{name: entry.summary for name, entry in ROOMS.items()}, "recipes": "recipes that come with sentemb",
         "methods": "published methods and the recipes that carry them"}  # fmt: skip


def catalogue(kind: str) -> dict[str, str]:
    """Name -> one line, for one of ``KINDS``.

    Raises:
        RecipeError: there is no such kind.
    """
    if kind == "recipes":
        return {name: _line(read_tree(name)[0]) for name in shipped_recipes()}
    if kind == "methods":
        by_source: dict[str, list[str]] = {}
        for name in shipped_recipes():
            by_source.setdefault(read_tree(name)[0]["source"], []).append(name)
        return {source: ", ".join(names) for source, names in by_source.items()}
    if kind not in ROOMS:
        raise RecipeError(f'"{kind}" cannot be listed{did_you_mean(kind, KINDS)}')
    return {name: _summary(kind, name) for name in room(kind).names()}


def _summary(kind: str, name: str) -> str:
    try:
        return describe(room(kind).find(name)).summary
    except (ImportError, MissingExtra) as error:
        return f"(cannot be used here: {first_line(error)})"


def _line(tree: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{name} {score}" for name, score in tree.get("expected", {}).items())
    return f"{tree['source']}{f'  [published: {scores}]' if scores else ''}"


def find_parts(name: str) -> list[tuple[str, type[Part]]]:
    """(room, class) of every part of that name: ``info_nce``, ``terms/info_nce``, ``package.module:Class``.

    Raises:
        PartError: a part of one's own cannot be imported, or inherits no room's base class.
    """
    chosen, slash, short = name.rpartition("/")
    rooms = [chosen] if slash and chosen in ROOMS else [] if slash else list(ROOMS)
    if ":" not in short:
        return [(where, room(where).find(short)) for where in rooms if short in room(where).names()]
    matches, faults = [], []
    for where in rooms:
        try:
            matches.append((where, room(where).find(short)))
        except PartError as error:
            faults.append(error)
    if not matches and faults:
        raise faults[0]
    return matches
