"""The base class of parts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

from sentemb.errors import PartError
from sentemb.parts.settings import Setting, check_values, settings_of, shown

BASES: dict[str, type[Part]] = {}  # room -> the class that all its parts inherit


class PartType(type):
    """Making a part checks its settings first, all of them at once."""

    def __call__(cls, *values: Any, **settings: Any) -> Any:
        known = settings_of(cls)
        if values:
            try:
                settings = cls.__signature__.bind(*values, **settings).arguments
            except TypeError:
                faults = [("", f"takes its settings by name: {', '.join(known) or 'none'}")]
                raise PartError(cls.__name__, faults) from None
        checked, faults = check_values(settings, known)
        if faults:
            raise PartError(cls.__name__, faults)
        try:
            part: Any = super().__call__(**checked)
        except ValueError as error:
            raise error if isinstance(error, PartError) else PartError(cls.__name__, [("", str(error))]) from error
        object.__setattr__(part, "_settings", {name: checked.get(name, entry.default) for name, entry in known.items()})
        return part

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's own, for ``help`` and for editors."""
        constructor = inspect.signature(inspect.getattr_static(cls, "__init__"))
        return constructor.replace(parameters=[*constructor.parameters.values()][1:])


class Part(metaclass=PartType):
    """Base of every part. A room's own base class names its room: ``class Term(Part, nn.Module, room="terms")``.

    Attributes:
        needs: claims that are checked before anything is loaded.
        marks: what a recipe may say of a part beside its settings, name -> type; ``weight`` and ``name`` of a term.
    """

    room: ClassVar[str] = ""
    needs: frozenset[str] = frozenset()
    marks: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    _settings: dict[str, Any]

    def __init_subclass__(cls, room: str | None = None) -> None:
        super().__init_subclass__()
        for name in ("__eq__", "__hash__", "__repr__"):  # in the class itself, or a dataclass would make its own
            if name not in cls.__dict__:
                setattr(cls, name, getattr(Part, name))
        if room is not None:
            cls.room = room
            BASES[room] = cls

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it was made with, defaults included."""
        return MappingProxyType(self._settings)

    @property
    def given_marks(self) -> Mapping[str, Any]:
        """The marks that were given."""
        return MappingProxyType(self.__dict__.get("_marks", {}))

    def is_for(self, source: str) -> bool:
        """Whether it takes part in batches of this source of a mixture (mark ``only``)."""
        only = self.given_marks.get("only")
        return only is None or source in only

    def marked(self, **marks: Any) -> Self:
        """A part of these settings and marks, with more or other marks (None takes one away), and no state."""
        cls = type(self)
        known = {name: Setting(annotation=kind | None, default=None) for name, kind in cls.marks.items()}
        checked, faults = check_values(marks, known)
        if faults:
            raise PartError(cls.__name__, faults)
        part = cls(**{name: _fresh(value) for name, value in self._settings.items()})
        together = {name: mark for name, mark in {**self.given_marks, **checked}.items() if mark is not None}
        object.__setattr__(part, "_marks", together)
        return part

    def fresh(self) -> Self:
        """A part of these settings and marks, and no state."""
        return self.marked()

    def changed_settings(self) -> dict[str, Any]:
        """The settings that are not at their defaults."""
        known = settings_of(type(self))
        values = self._settings.items()
        return {name: value for name, value in values if known[name].is_required or value != known[name].default}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Part):
            return NotImplemented
        is_alike = type(self) is type(other) and self.given_marks == other.given_marks
        return is_alike and self._settings == other._settings

    # By identity: torch keeps modules in sets, and two terms of equal settings are two modules.
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        both = self.changed_settings(), self.given_marks
        settings, marks = (", ".join(f"{name}={value!r}" for name, value in values.items()) for values in both)
        return f"{type(self).__name__}({settings})" + (f".marked({marks})" if marks else "")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # so that pydantic reads parts anywhere: an instance, a name, or a table with `use`
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(cls._read)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        from sentemb.parts.help import REFERENCE, unlinked_schema
        from sentemb.parts.rooms import room

        if not cls.room:
            return unlinked_schema(cls)
        own = {"type": "string", "pattern": "[:+]"}  # package.module:Class, or poolings joined by a plus
        return {"anyOf": [{REFERENCE: f"#/$defs/{cls.room}"}, {"enum": room(cls.room).names()}, own]}

    @classmethod
    def _read(cls, value: Any) -> Part:
        from sentemb.parts.rooms import room

        if not cls.room and isinstance(value, Mapping):  # plain settings
            return cls(**value)
        if isinstance(value, str) and cls.room:
            value = {"use": value}
        part = room(cls.room).make(value) if isinstance(value, Mapping) else value
        if not isinstance(part, cls):
            raise PartError("", [("", f'= {shown(value)}: must be a {cls.__name__}: a table with use = "…"')])
        return part


def _fresh(value: Any) -> Any:
    if isinstance(value, Part):
        return value.fresh()
    if isinstance(value, dict):
        return {name: _fresh(entry) for name, entry in value.items()}
    return type(value)(map(_fresh, value)) if type(value) in (list, tuple) else value


def to_table(part: Part) -> dict[str, Any]:
    """The TOML table that makes the part: its name, the settings that are not at their defaults, its marks."""
    from sentemb.parts.rooms import room

    settings = {name: _plain(value) for name, value in part.changed_settings().items()}
    name = {"use": room(part.room).name_of(type(part))} if part.room else {}
    marks = {mark: _plain(value) for mark, value in part.given_marks.items()}
    return {**name, **settings, **marks}


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return to_table(value)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (set, frozenset, list, tuple)):
        entries = [_plain(entry) for entry in value]
        return sorted(entries) if isinstance(value, (set, frozenset)) else entries
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)
