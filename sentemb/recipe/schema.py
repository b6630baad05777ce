"""A recipe's tree: which tables and keys there are, and every fault of a given tree at once."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sentemb.errors import SentembError, did_you_mean

KEYS = {
    "source": "where the method was published",
    "expected": "scores its authors publish, by name",
    "note": "what a user should know",
    "extends": "another recipe this one builds on",
    "clear": "tables of the extended recipe to drop",
    "similarity": "cosine or dot",
    "encoder": "backbone, pooling, heads",
    "data": "where the texts come from",
    "views": "what is encoded for one example",
    "companions": "stateful helpers",
    "edits": "changes of the score table, in order",
    "terms": "losses with weights",
    "train": "optimisation",
    "dev": "evaluation while training",
}
ENCODER_KEYS = {
    "backbone", "pooling", "head", "heads", "max_tokens", "prompts", "revision", "trust_remote_code", "freeze", "lora",
}


@dataclass(frozen=True)
class PartSpec:
    """One part of a recipe: which class, with which parameters, and where the recipe says so."""

    where: str  # "edits[0]"
    use: str
    cls: type
    params: Mapping[str, Any]

    def make(self) -> Any:
        """The part (nothing is loaded; that is ``bind``'s)."""
        return self.cls(**self.params)


class Faults:
    """Collects faults, each with the recipe's name in front."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe
        self.found: list[str] = []

    def add(self, where: str, what: str) -> None:
        """One more fault."""
        self.found.append(f"{self.recipe}: {where}{' ' if where and not what.startswith(' ') else ''}{what}".strip())

    def unknown_keys(self, where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
        """A fault for every key that is not known."""
        known = list(known)
        for key in table:
            if key not in known:
                self.add(f"{where}.{key}" if where else key, f"is not a known key{did_you_mean(key, known)}")


def find_class(use: str, room: Mapping[str, type]) -> type | str:
    """The class of a part by its name in the room or as ``package.module:Class``; else what is wrong with it."""
    if use in room:
        return room[use]
    if ":" not in use:
        return f'= "{use}"{did_you_mean(use, room)}; a part of your own is "package.module:Class"'
    module_name, _, class_name = use.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        return f'= "{use}": {module_name} cannot be imported ({type(error).__name__}: {error})'
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        return f'= "{use}": {module_name} has no class {class_name}'
    return found


def read_part(
    faults: Faults, where: str, entry: Any, room: Mapping[str, type], *, extra: Iterable[str] = ()
) -> PartSpec | None:
    """Check one part's table: its name, its parameters' names and types, and what its constructor says."""
    if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
        faults.add(where, f'needs use = "…"; known: {", ".join(sorted(room))}')
        return None
    cls = find_class(entry["use"], room)
    if isinstance(cls, str):
        faults.add(f"{where}.use", cls)
        return None
    before = len(faults.found)
    params = {key: value for key, value in entry.items() if key != "use" and key not in extra}
    known = constructor_parameters(cls)
    faults.unknown_keys(where, params, known)
    for name, (annotation, is_required) in known.items():
        if name not in params:
            if is_required:
                faults.add(where, f'needs {name} = … ({_describe(annotation)}) for {entry["use"]}')
            continue
        problem = type_fault(params[name], annotation)
        if problem:
            faults.add(f"{where}.{name}", f"= {params[name]!r}: {problem}")
    if len(faults.found) > before:
        return None
    spec = PartSpec(where, entry["use"], cls, coerce(params, known))
    try:
        spec.make()
    except (ValueError, TypeError, SentembError) as error:
        faults.add(where, f"({entry['use']}): {error}")
        return None
    return spec


def constructor_parameters(cls: type) -> dict[str, tuple[Any, bool]]:
    """Keyword parameters of a constructor: annotation and whether it is required."""
    try:
        hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError):
        hints = {}
    found = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            found[name] = (hints.get(name, Any), parameter.default is parameter.empty)
    return found


def type_fault(value: Any, annotation: Any) -> str | None:
    """What is wrong with a TOML value for an annotation, or None."""
    from pydantic import ValidationError

    try:
        _adapter(annotation).validate_python(value, strict=False)
    except ValidationError as error:
        messages = dict.fromkeys(_lower_first(entry["msg"]) for entry in error.errors())
        return "; ".join(messages)
    if isinstance(value, bool) and bool not in _alternatives(annotation) and annotation is not Any:
        return f"expected {_describe(annotation)}, not true or false"
    return None


def coerce(params: Mapping[str, Any], known: Mapping[str, tuple[Any, bool]]) -> dict[str, Any]:
    """TOML values as the annotations want them (an integer where a float is asked for)."""
    return {name: _adapter(known[name][0]).validate_python(value) for name, value in params.items()}


def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=False))
    except PydanticUserError:  # the annotation brings its own configuration
        return TypeAdapter(annotation)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    arguments = typing.get_args(annotation)
    return (annotation, *arguments) if arguments else (annotation,)


def _describe(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
