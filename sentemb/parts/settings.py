"""Settings of parts: what a constructor takes, and whether given values fit."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

from sentemb.errors import PartError, did_you_mean

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Whole = Annotated[int, Ge(0)]

Fault = tuple[str, str]  # (path of a setting, what is wrong)
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One keyword of a part's constructor."""

    annotation: Any
    default: Any = inspect.Parameter.empty

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty


@functools.cache
def settings_of(cls: type) -> Mapping[str, Setting]:
    """The keywords of a part's constructor, in order."""
    constructor = inspect.getattr_static(cls, "__init__")
    if constructor is object.__init__:
        return MappingProxyType({})
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    kinds = typing.get_type_hints(cls if fields else constructor, include_extras=True)
    made = {field.name: field.default_factory for field in fields if field.default_factory is not dataclasses.MISSING}
    settings = {}
    for name, entry in list(inspect.signature(constructor).parameters.items())[1:]:
        if entry.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            default = made[name]() if name in made else entry.default
            settings[name] = Setting(annotation=kinds.get(name, Any), default=default)
    return MappingProxyType(settings)


def check_values(values: Mapping[str, Any], known: Mapping[str, Setting]) -> tuple[dict[str, Any], list[Fault]]:
    """The values as their annotations want them, and every fault."""
    faults = [(name, f"is not a known key{did_you_mean(name, known)}") for name in values if name not in known]
    checked: dict[str, Any] = {}
    for name, setting in known.items():
        if name in values:
            try:
                checked[name] = check_value(values[name], setting.annotation)
            except PartError as error:
                faults.extend((_joined(name, path), problem) for path, problem in error.entries)
        elif setting.is_required:
            faults.append(("", f"needs {name} = … ({spell(setting.annotation)})"))
    return checked, faults


def check_value(value: Any, annotation: Any) -> Any:
    """The value as the annotation wants it (an integer as a number, a table as a part), or a ``PartError``."""
    from pydantic import ValidationError

    try:
        checked = adapter(annotation).validate_python(value)
    except ValidationError as error:
        raise PartError("", _faults_of(error)) from None
    # pydantic reads "1" and true as numbers; in a recipe they are mistakes
    if isinstance(value, (bool, str)) and isinstance(checked, (int, float)) and type(checked) is not type(value):
        raise PartError("", [("", f"= {shown(value)}: must be {spell(annotation)}")])
    return checked


def _faults_of(error: Any) -> list[Fault]:
    """Every error in a pydantic ``ValidationError``, those of nested parts included."""
    faults: dict[Fault, None] = {}
    for entry in error.errors():
        path = ""
        for step in entry["loc"]:
            if isinstance(step, int):
                path += f"[{step}]"
            elif step.isidentifier():  # others are pydantic's names for members of a union
                path = _joined(path, step)
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, PartError):
            faults.update(((_joined(path, inner), problem), None) for inner, problem in cause.entries)
        else:
            message = entry["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            faults[path, f"= {shown(entry['input'])}: {message[:1].lower()}{message[1:]}"] = None
    return list(faults)


def _joined(outer: str, inner: str) -> str:
    """``a`` and ``b`` as ``a.b``; ``a`` and ``[0]`` as ``a[0]``."""
    return f"{outer}{'.' if outer and inner and not inner.startswith('[') else ''}{inner}"


def shown(value: Any) -> str:
    """A value as TOML writes it, nearly."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def adapter(annotation: Any) -> Any:
    """pydantic's validator of an annotation; numbers must be finite."""
    try:
        return _adapter(annotation)
    except TypeError:  # an annotation that cannot be hashed cannot be remembered
        return _adapter.__wrapped__(annotation)


@functools.cache
def _adapter(annotation: Any) -> Any:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(annotation, config={"arbitrary_types_allowed": True, "allow_inf_nan": False})
    except PydanticUserError:  # the annotation brings its own configuration
        return TypeAdapter(annotation)


def spell(annotation: Any) -> str:
    """An annotation in words: ``number above 0``, ``"one" or "both"``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        limits = [dataclasses.asdict(bound) for bound in arguments[1:] if isinstance(bound, (Gt, Ge, Lt, Le))]
        bounds = " and ".join(f"{_BOUNDS[name]} {value}" for limit in limits for name, value in limit.items())
        return f"{spell(arguments[0])} {bounds}".strip()
    if origin is typing.Literal:
        return " or ".join(map(shown, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spell(kind) for kind in arguments if kind is not type(None))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"table of {' to '.join(map(spell, arguments))}"
    if origin is tuple and Ellipsis not in arguments:
        return f"[{', '.join(map(spell, arguments))}]"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"list of {spell(arguments[0])}"
    words: dict[type, str] = {float: "number", int: "whole number", str: "text", bool: "true or false"}
    if isinstance(annotation, type) and origin is None:
        return words.get(annotation, annotation.__name__)
    return str(annotation).replace("typing.", "")
