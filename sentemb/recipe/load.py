"""Recipe files: found by path or name, extended one level, overridden by ``--set``, parsed to a plain tree."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentemb.errors import RecipeError, did_you_mean
from sentemb.resources import recipes_dir

# of the extended recipe: they say nothing of the one that extends it
_OWN = ("name", "source", "expected", "note")


def shipped_recipes() -> dict[str, Path]:
    """Recipes that come with sentemb, by name (the path below recipes/ without .toml)."""
    root = recipes_dir()
    return {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.toml"))}


def find_recipe(name: str | Path) -> Path:
    """A file, or the name of a shipped recipe (with or without ``recipes/`` and ``.toml``)."""
    path = Path(name)
    if path.is_file():
        return path
    short = str(name).removeprefix("recipes/").removesuffix(".toml")
    shipped = shipped_recipes()
    if short in shipped:
        return shipped[short]
    raise RecipeError(f'"{name}" is neither a file nor a recipe{did_you_mean(short, shipped)}')


def read_tree(name: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Path]:
    """The resolved tree of a recipe, and its file.

    Args:
        name: file or shipped recipe.
        overrides: ``key.path=value`` each, the value as TOML (a bare word is a string).

    Raises:
        RecipeError: no such recipe, not TOML, a wrong ``extends`` or a wrong override.
    """
    path = find_recipe(name)
    tree = _read(path)
    if "extends" in tree:
        tree = _extend(tree, path)
    faults: list[str] = []
    for override in overrides:
        try:
            apply_override(tree, override)
        except RecipeError as error:
            faults.extend(error.faults)
    if faults:
        raise RecipeError(faults)
    return tree, path


def _read(path: Path) -> dict[str, Any]:
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not UTF-8") from None


def parse(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text; ``where`` opens the message of the ``RecipeError`` if it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: not valid TOML: {error}") from None


def _extend(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    """Tables merge, arrays append, ``clear`` drops tables first. One level only."""
    name = tree.pop("extends")
    clear = tree.pop("clear", [])
    if not isinstance(name, str):
        raise RecipeError(f"{path}: extends = {name!r}; it must be one recipe's name or path")
    beside = path.parent / (name if name.endswith(".toml") else f"{name}.toml")
    base_path = beside if beside.is_file() else find_recipe(name)
    base = _read(base_path)
    if "extends" in base:
        raise RecipeError(f"{path}: extends {name}, which extends {base['extends']}; only one level is allowed")
    unknown = [key for key in clear if key not in base]
    if unknown:
        raise RecipeError(f"{path}: clear names {', '.join(map(repr, unknown))}, which {name} does not have")
    for key in (*clear, *_OWN):
        base.pop(key, None)
    return merge(base, tree)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key, arrays of tables append, anything else is replaced.

    A part with another ``use`` replaces the whole table (its parameters belong to that part), and ``encoder.heads``
    is replaced as well: heads are one stack, not a collection.
    """
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            is_other_part = "use" in value and before.get("use") not in (None, value["use"])
            result[key] = copy.deepcopy(value) if is_other_part else merge(before, value)
        elif key != "heads" and isinstance(before, list) and isinstance(value, list) and _are_tables(value):
            result[key] = [*before, *copy.deepcopy(value)]
        else:
            result[key] = copy.deepcopy(value)
    return result


def _are_tables(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(entry, dict) for entry in value)


def apply_override(tree: dict[str, Any], override: str) -> None:
    """``terms.0.weight=2`` in place."""
    key, separator, text = override.partition("=")
    steps = key.strip().split(".")
    if not separator or not all(steps):
        raise RecipeError(f"--set {override}: it must be key.path=value, e.g. --set train.learning_rate=1e-5")
    table: Any = tree
    if len(steps) > 1 and steps[1].isdigit() and steps[0] not in tree:
        tree[steps[0]] = []
    for depth, step in enumerate(steps[:-1]):
        where = ".".join(steps[: depth + 1])
        if isinstance(table, list):
            table = table[_index(table, step, override)]
        elif isinstance(table, dict):
            table = table.setdefault(step, {})
        if not isinstance(table, (dict, list)):
            raise RecipeError(f"--set {override}: {where} is a value, not a table")
    if isinstance(table, list):
        table[_index(table, steps[-1], override)] = parse_value(text)
    else:
        table[steps[-1]] = parse_value(text)


def _index(entries: list[Any], step: str, override: str) -> int:
    if step == str(len(entries)):
        entries.append({})
    if step.isdigit() and int(step) < len(entries):
        return int(step)
    raise RecipeError(f"--set {override}: there is no entry {step}; the recipe has {len(entries)}, counted from 0")


def parse_value(text: str) -> Any:
    """A TOML value; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
