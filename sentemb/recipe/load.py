"""Recipe files: found by path or name, extended, overridden by ``--set``, parsed to a plain tree."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentemb.errors import RecipeError, did_you_mean
from sentemb.files import share_dir

# do not change what is trained, and say nothing of a recipe that extends another one
DESCRIPTIVE = ("name", "source", "expected", "note")


def shipped_recipes() -> dict[str, Path]:
    """Recipes that come with sentemb, by name (the path below recipes/ without .toml)."""
    root = share_dir("recipes")
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
    tree = parse(path.read_bytes(), str(path))
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


def parse(text: str | bytes, where: str) -> dict[str, Any]:
    """The tables of a TOML text; ``where`` opens the message of the ``RecipeError`` if it is none."""
    try:
        return tomllib.loads(text if isinstance(text, str) else text.decode())
    except ValueError as error:  # also of bytes that are not UTF-8
        raise RecipeError(f"{where}: not valid TOML: {error}") from None


def _extend(tree: dict[str, Any], path: Path, through: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tables merge, arrays append, ``clear`` drops tables first. ``through`` are the recipes that led here."""
    name = tree.pop("extends")
    clear = tree.pop("clear", [])
    if not isinstance(name, str):
        raise RecipeError(f"{path}: extends = {name!r}; it must be one recipe's name or path")
    beside = path.parent / (name if name.endswith(".toml") else f"{name}.toml")
    base_path = beside if beside.is_file() else find_recipe(name)
    base = parse(base_path.read_bytes(), str(base_path))
    if str(base_path) in (*through, str(path)):
        raise RecipeError(f"{path}: extends {name}, which extends it in turn")
    if "extends" in base:
        base = _extend(base, base_path, (*through, str(path)))
    unknown = [key for key in clear if key not in base]
    if unknown:
        raise RecipeError(f"{path}: clear names {', '.join(map(repr, unknown))}, which {name} does not have")
    for key in (*clear, *DESCRIPTIVE):
        base.pop(key, None)
    return merge(base, tree)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key, arrays of tables append, anything else is replaced.

    A part with another ``use`` replaces the whole table (its parameters belong to that part), and ``encoder.heads``
    is replaced as well: heads are one stack, not a collection.
    """
    result = copy.deepcopy(dict(base))
    for key, value in copy.deepcopy(dict(over)).items():
        before: Any = result.get(key)
        is_merged = isinstance(before, dict) and isinstance(value, dict)
        if is_merged and ("use" not in value or before.get("use") in (None, value["use"])):
            result[key] = merge(before, value)
        elif key != "heads" and isinstance(before, list) and value and all(isinstance(entry, dict) for entry in value):
            result[key] = [*before, *value]
        else:
            result[key] = value
    return result


def apply_override(tree: dict[str, Any], override: str) -> None:
    """``terms.0.weight=2`` in place."""
    key, separator, text = override.partition("=")
    steps = key.strip().split(".")
    if not separator or not all(steps):
        raise RecipeError(f"--set {override}: it must be key.path=value, e.g. --set train.learning_rate=1e-5")
    if len(steps) > 1 and steps[1].isdigit():
        tree.setdefault(steps[0], [])
    table: Any = tree
    for depth, step in enumerate(steps, start=1):
        key_here: Any = step
        if isinstance(table, list):
            if step == str(len(table)):
                table.append({})
            if not step.isdigit() or int(step) >= len(table):
                known = f"the recipe has {len(table)}, counted from 0"
                raise RecipeError(f"--set {override}: there is no entry {step}; {known}")
            key_here = int(step)
        elif not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {'.'.join(steps[: depth - 1])} is a value, not a table")
        if depth == len(steps):
            table[key_here] = parse_value(text)
        else:
            table = table[key_here] if isinstance(table, list) else table.setdefault(key_here, {})


def parse_value(text: str) -> Any:
    """A TOML value; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
