"""What there is to choose from, read off the rooms' ``PARTS`` and the recipe files."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Mapping

from sentemb.recipe.load import merge, shipped_recipes

# kind -> the dictionaries that hold its parts
ROOMS: dict[str, tuple[tuple[str, str], ...]] = {
    "terms": (("sentemb.terms", "PARTS"),),
    "edits": (("sentemb.edits", "PARTS"),),
    "views": (("sentemb.views", "PARTS"), ("sentemb.views", "COPIES")),
    "companions": (("sentemb.companions", "PARTS"),),
    "poolings": (("sentemb.encoder.poolings", "PARTS"),),
    "heads": (("sentemb.encoder.heads", "PARTS"),),
    "data": (("sentemb.data", "PARTS"),),
}


def catalogue(kind: str) -> dict[str, str]:
    """Name → one line, for a room, ``poolings``, ``recipes`` or ``methods``."""
    if kind == "recipes":
        return {name: _line(_tree(name)) for name in shipped_recipes()}
    if kind == "methods":
        return _methods()
    return {name: _first_line(cls) for name, cls in parts(kind).items()}


def parts(kind: str) -> dict[str, type]:
    """Every part of a room by name."""
    found: dict[str, type] = {}
    for module, attribute in ROOMS[kind]:
        found.update(getattr(importlib.import_module(module), attribute))
    return found


def _tree(name: str) -> Mapping[str, object]:
    path = shipped_recipes()[name]
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    if isinstance(tree.get("extends"), str):
        base = tomllib.loads((path.parent / f"{tree['extends']}.toml").read_text(encoding="utf-8"))
        return merge({key: base[key] for key in ("source",) if key in base}, tree)
    return tree


def _line(tree: Mapping[str, object]) -> str:
    expected = tree.get("expected")
    scores = ", ".join(f"{name} {score}" for name, score in expected.items()) if isinstance(expected, dict) else ""
    return f"{tree.get('source', '')}{f'  [published: {scores}]' if scores else ''}"


def _methods() -> dict[str, str]:
    """Published methods and the recipes that carry them."""
    by_source: dict[str, list[str]] = {}
    for name in shipped_recipes():
        by_source.setdefault(str(_tree(name).get("source", "")), []).append(name)
    return {source: ", ".join(names) for source, names in by_source.items() if source}


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0] if cls.__doc__ else ""
