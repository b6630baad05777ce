"""A recipe or a part in words: formula, settings, source and where its code is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from sentemb.parts import Part, describe, room, settings_of, spell
from sentemb.recipe.recipe import Recipe


def recipe_lines(recipe: Recipe) -> Iterator[str]:
    """A recipe resolved: every part in the order in which data flow through them."""
    yield recipe.name
    if recipe.source:
        yield f"  source    {recipe.source}"
    if recipe.expected:
        yield "  expected  " + ", ".join(f"{name} {score}" for name, score in recipe.expected.items())
    if recipe.note:
        yield f"  note      {recipe.note}"
    yield f"  hash      {recipe.hash[:16]}"
    encoder = recipe.encoder
    pooling = "" if encoder.pooling else "; pooling as saved with the checkpoint, else mean"
    limit = encoder.max_tokens or "the checkpoint's"
    yield ""
    yield f"encoder  {encoder.backbone}{pooling}; max tokens {limit}{'; frozen' if encoder.freeze else ''}"
    for where, part in recipe.parts().items():
        marks = dict(part.given_marks)
        weight = f"{marks.pop('weight'):g} × " if "weight" in marks else ""
        named = f' "{marks["name"]}"' if "name" in marks else ""
        yield ""
        yield from _headed_lines(f"{where}  {weight}{room(part.room).name_of(type(part))}{named}", type(part))
        shown = [
            f"{name} = {value!r}{'' if name in part.changed_settings() else ' (default)'}"
            for name, value in part.settings.items()
            if name in part.changed_settings() or value not in (None, False, (), {}, "")
        ]
        if shown:
            yield from _wrapped("with", ", ".join(shown))
        yield f"    at {describe(type(part)).location}"
    yield ""
    chosen = recipe.train.changed_settings()
    yield "train  " + (", ".join(f"{key} = {value}" for key, value in chosen.items()) or "all defaults")


def part_lines(where: str, cls: type[Part]) -> Iterator[str]:
    """A part: what it is, and what its settings mean."""
    facts = describe(cls)
    yield from _headed_lines(f"{where}/{room(where).name_of(cls)}", cls)
    yield f"    at {facts.location}"
    for name, setting in settings_of(cls).items():
        default = "" if setting.is_required else f", by default {_shown(setting.default)}"
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
    if facts.deviations and not facts.deviations.lower().startswith("none"):
        yield from _wrapped("deviates", facts.deviations)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default in (None, (), {}) else str(default)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label} {text}".strip(), width=110, initial_indent="    ", subsequent_indent="      ")
