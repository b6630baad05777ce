"""Settings of parts: what a constructor takes, and whether given values fit."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Mapping
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

REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One keyword of a part's constructor."""

    annotation: Any
    default: Any = REQUIRED

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is REQUIRED


@functools.cache
def settings_of(cls: type) -> Mapping[str, Setting]:
    """The keywords of a part's constructor, in order."""
    if dataclasses.is_dataclass(cls):
        kinds = typing.get_type_hints(cls, include_extras=True)
        fields = [field for field in dataclasses.fields(cls) if field.init]
        return MappingProxyType(
            {field.name: Setting(annotation=kinds[field.name], default=_default_of(field)) for field in fields}
        )
    constructor = inspect.getattr_static(cls, "__init__")
    if constructor is object.__init__:
        return MappingProxyType({})
    kinds = typing.get_type_hints(constructor, include_extras=True)
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [entry for entry in inspect.signature(constructor).parameters.values() if entry.kind in named]
    return MappingProxyType(
        {entry.name: Setting(annotation=kinds.get(entry.name, Any), default=entry.default) for entry in parameters[1:]}
        if parameters and parameters[0].name == "self"
        else {}
    )


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def check_values(
    values: Mapping[str, Any], known: Mapping[str, Setting]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The values as their annotations want them, and (path, what is wrong) for every fault."""
    faults = [(name, f"is not a known key{did_you_mean(name, known)}") for name in values if name not in known]
    checked: dict[str, Any] = {}
    for name, setting in known.items():
        if name in values:
            try:
                checked[name] = check_value(values[name], setting.annotation)
            except PartError as error:
                faults.extend((join_path(name, path), problem) for path, problem in error.entries)
        elif setting.is_required:
            faults.append(("", f"needs {name} = … ({spell(setting.annotation)})"))
    return checked, faults


def check_value(value: Any, annotation: Any) -> Any:
    """The value as the annotation wants it: an integer where a number is wanted, a table as a part.

    Raises:
        PartError: its entries are (path inside the value, what is wrong).
    """
    from pydantic import ValidationError

    try:
        checked = adapter(annotation).validate_python(value)
    except ValidationError as error:
        raise PartError("", faults_of(error, shows_root=True)) from None
    # pydantic reads "1" and true as numbers; in a recipe they are mistakes
    if isinstance(value, (bool, str)) and isinstance(checked, (int, float)) and type(checked) is not type(value):
        raise PartError("", [("", f"= {shown(value)}: must be {spell(annotation)}")])
    return checked


def faults_of(error: Any, *, shows_root: bool = False) -> list[tuple[str, str]]:
    """(path, what is wrong) of every error in a pydantic ``ValidationError``, those of nested parts included.

    ``shows_root``: an error without a path shows its value as well; for values, not for whole tables.
    """
    faults: dict[tuple[str, str], None] = {}
    for entry in error.errors():
        path = ""
        for step in entry["loc"]:
            if isinstance(step, int):
                path += f"[{step}]"
            elif step.isidentifier():  # others are pydantic's names for members of a union
                path = join_path(path, step)
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, PartError):
            faults.update(((join_path(path, inner), problem), None) for inner, problem in cause.entries)
            continue
        plain = {"extra_forbidden": "is not a known key", "missing": "is missing"}
        message = entry["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        value = f"= {shown(entry['input'])}: " if path or shows_root else ""
        faults[path, plain.get(entry["type"], f"{value}{message[:1].lower()}{message[1:]}")] = None
    return list(faults)


def join_path(outer: str, inner: str) -> str:
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
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
    except PydanticUserError:  # the annotation brings its own configuration
        return TypeAdapter(annotation)


def spell(annotation: Any) -> str:
    """An annotation in words: ``number above 0``, ``"one" or "both"``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return " ".join([spell(arguments[0]), " and ".join(filter(None, map(_spell_bound, arguments[1:])))]).strip()
    if origin is typing.Literal:
        return " or ".join(map(shown, arguments))
    if type(None) in arguments:
        return " or ".join(spell(kind) for kind in arguments if kind is not type(None))
    words = {float: "number", int: "whole number", str: "text", bool: "true or false"}
    if annotation in words:
        return words[annotation]
    is_class = isinstance(annotation, type) and origin is None
    return annotation.__name__ if is_class else str(annotation).replace("typing.", "")


def _spell_bound(bound: Any) -> str:
    match bound:
        case Gt(gt=limit):
            return f"above {limit}"
        case Ge(ge=limit):
            return f"at least {limit}"
        case Lt(lt=limit):
            return f"below {limit}"
        case Le(le=limit):
            return f"at most {limit}"
    return ""
