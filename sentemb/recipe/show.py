"""What a recipe resolves to, in words: every part with its formula, source and place in the code."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentemb.recipe.recipe import Recipe
from sentemb.recipe.schema import PartSpec, constructor_parameters


@dataclass(frozen=True)
class PartFacts:
    """What is known of one part."""

    where: str
    use: str
    parameters: Mapping[str, Any]  # as given, and defaults
    given: frozenset[str]
    summary: str
    formula: str
    source: str
    deviations: str
    place: str  # file:line


def chain(recipe: Recipe) -> list[PartFacts]:
    """The facts of every part, in the order in which data flow through them."""
    return [facts_of(spec) for spec in (*recipe.encoder.heads, *recipe.parts)]


def facts_of(spec: PartSpec) -> PartFacts:
    """A part's facts from its class."""
    signature = inspect.signature(spec.cls).parameters
    parameters = {
        name: spec.params.get(name, signature[name].default)
        for name, (_, is_required) in constructor_parameters(spec.cls).items()
        if name in spec.params or not is_required
    }
    summary, formula, sections = read_docstring(spec.cls)
    return PartFacts(
        spec.where, spec.use, parameters, frozenset(spec.params), summary, formula, sections.get("Source", ""),
        sections.get("Deviations", ""), place_of(spec.cls),
    )


def read_docstring(cls: type) -> tuple[str, str, dict[str, str]]:
    """First line, formula (the first indented block before the sections), and the sections by name."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines()
    summary = lines[0] if lines else ""
    sections: dict[str, list[str]] = {}
    current: str | None = None
    formula: list[str] = []
    for line in lines[1:]:
        heading = re.match(r"^(Args|Returns|Raises|Source|Deviations|Attributes|Example):\s*(.*)$", line)
        if heading:
            current = heading.group(1)
            sections[current] = [heading.group(2)] if heading.group(2) else []
        elif current is not None:
            sections[current].append(line.strip())
        elif line.startswith("    "):
            formula.append(line[4:])
    return summary, "\n".join(formula), {name: " ".join(text).strip() for name, text in sections.items()}


def place_of(cls: type) -> str:
    """``file:line`` of a class, relative to the current folder where it lies below it."""
    file = Path(inspect.getsourcefile(cls) or "?").resolve()
    line = inspect.getsourcelines(cls)[1]
    try:
        return f"{file.relative_to(Path.cwd())}:{line}"
    except ValueError:
        return f"{file}:{line}"


def as_lines(recipe: Recipe) -> Iterator[str]:
    """The recipe for a reader."""
    tree = recipe.tree
    yield f"{recipe.name}  ({recipe.path})"
    if "source" in tree:
        yield f"  source    {tree['source']}"
    if tree.get("expected"):
        yield "  expected  " + ", ".join(f"{name} {score}" for name, score in tree["expected"].items())
    if "note" in tree:
        yield f"  note      {tree['note']}"
    encoder = recipe.encoder
    yield f"  hash      {recipe.hash[:16]}"
    yield ""
    pooling = encoder.pooling or "as saved with the checkpoint, else mean"
    limit = encoder.max_tokens or "the checkpoint's"
    yield f"encoder  {encoder.backbone}; pooling {pooling}; max tokens {limit}{'; frozen' if encoder.freeze else ''}"
    for facts in chain(recipe):
        yield ""
        yield from _part_lines(facts, recipe)
    yield ""
    chosen = recipe.train.model_dump(exclude_defaults=True)
    yield "train  " + (", ".join(f"{key} = {value}" for key, value in chosen.items()) or "all defaults")
    if recipe.dev is not None:
        yield f"dev    {recipe.dev.use} on {recipe.dev.path} ({recipe.dev.protocol})"


def _part_lines(facts: PartFacts, recipe: Recipe) -> Iterator[str]:
    weight = next((entry.weight for entry in recipe.terms if entry.spec.where == facts.where), None)
    times = f"{weight:g} × " if weight is not None else ""
    yield f"{facts.where}  {times}{facts.use}: {facts.summary}"
    for line in facts.formula.splitlines():
        yield f"    {line}"
    shown = [
        f"{name} = {value!r}{'' if name in facts.given else ' (default)'}"
        for name, value in facts.parameters.items()
        if name in facts.given or _says_something(value)
    ]
    if shown:
        yield from _wrapped("with", ", ".join(shown))
    if facts.source:
        yield from _wrapped("source", facts.source)
    if facts.deviations and not facts.deviations.lower().startswith("none"):
        yield from _wrapped("deviates", facts.deviations)
    yield f"    at {facts.place}"


def _says_something(value: Any) -> bool:
    """Whether a default is worth a reader's time (not: nothing, empty, or made per instance)."""
    return value not in (None, False, (), [], {}, "") and not repr(value).startswith("<")


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label} {text}", width=110, initial_indent="    ", subsequent_indent="      ")
