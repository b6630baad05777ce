"""The page of all shipped recipes, by the data that they take."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentemb import Part, Recipe

_FAMILIES = {
    "sentences": "Sentences alone",
    "pairs": "Pairs and triplets",
    "scores": "Pairs and lists with scores or grades",
    "labels": "Texts with labels",
    "teachers": "A teacher, or another frozen reference",
    "mixtures": "Several data sets",
    "published": "Of published sizes",
}
_PUBLISHED = """The checkpoints, data and settings of the papers. "Published" are the scores that the authors give; they
have not been retrained here (no GPU, no hub)."""
_HEAD = """# Recipes

The {count} recipes that come with sentemb. `sentemb train NAME --set data.path=FILE` runs one, `sentemb show NAME`
prints every part of it, and `--set` changes any of its values. What columns your data need:
[your data, your recipe](../data.md)."""


@functools.cache
def recipes() -> dict[str, Recipe]:
    """Every shipped recipe by name."""
    from sentemb import Recipe
    from sentemb.recipe.load import shipped_recipes

    return {name: Recipe.named(name) for name in sorted(shipped_recipes())}


def used_parts(recipe: Recipe) -> Iterable[Part]:
    """Every part that a recipe names, a mixture's sources included."""
    from sentemb.recipe.needs import parts_of

    chosen = recipe.train.changed_settings()
    yield from (part for where, part in parts_of(vars(recipe)).items() if where != "train.batches")
    yield from (source for name, source in recipe.data.sources.items() if name)
    yield from (chosen[name] for name in ("batches", "optimizer", "schedule") if name in chosen)


def family_of(recipe: Recipe) -> str:
    """Which heading a recipe stands under: what its data must have."""
    from sentemb.companions import Reference
    from sentemb.data import Lines
    from sentemb.recipe.needs import parts_of

    parts = list(parts_of(vars(recipe)).values())
    needs = {need for part in parts for need in getattr(part, "needs", ())}
    if re.search(r"-(base|large)|qwen3", recipe.name):
        return "published"
    if len(recipe.data.sources) > 1:
        return "mixtures"
    if any(isinstance(part, Reference) for part in parts) and "texts" in needs:
        return "teachers"
    if needs & {"labels", "levels"}:
        return "labels"
    if needs & {"scores", "grades", "negative_scores", "margins", "weights"}:
        return "scores"
    return "sentences" if isinstance(recipe.data, Lines) else "pairs"


def page() -> str:
    """The page's text."""
    families: dict[str, list[Recipe]] = {family: [] for family in _FAMILIES}
    for recipe in recipes().values():
        families[family_of(recipe)].append(recipe)
    pieces = [_HEAD.format(count=len(recipes()))]
    for family, title in _FAMILIES.items():
        pieces += [f"## {title} {{ #{family} }}"]
        pieces += [_PUBLISHED] if family == "published" else []
        for recipe in families[family]:
            pieces += list(_section(recipe))
    return "\n\n".join(pieces) + "\n"


def _section(recipe: Recipe) -> Iterator[str]:
    from sentemb.recipe.load import shipped_recipes

    text = shipped_recipes()[recipe.name].read_text(encoding="utf-8")
    command, about = _opening(text)
    yield f"### {recipe.name} {{ #{recipe.name} }}"
    if about:
        yield about
    yield f"```bash\n{command}\n```"
    yield f"**Source**: {recipe.source}"
    if recipe.note:
        yield f"**Note**: {recipe.note.strip()}"
    if recipe.expected:
        yield "**Published**: " + ", ".join(f"{name} {score:.2f}" for name, score in recipe.expected.items())
    links = dict.fromkeys(_link(part) for part in used_parts(recipe) if part.room)
    yield "**Parts**: " + ", ".join(links)
    body = "\n".join(f"    {line}".rstrip() for line in text.strip().splitlines())
    yield f'??? note "{recipe.name}.toml"\n\n    ```toml\n{body}\n    ```'


def _opening(text: str) -> tuple[str, str]:
    """The command in a recipe's first line, and what the comment below it says."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return lines[0], " ".join(filter(None, lines[1:]))


def _link(part: Part) -> str:
    from sentemb.parts import room

    name = room(part.room).name_of(type(part))
    return f"[{name}](parts/{part.room}.md#{name})" if ":" not in name else f"`{name}`"
