"""The base class of parts, and the rooms that list them."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import Any, ClassVar, Self

from sentemb.errors import PartError, did_you_mean
from sentemb.parts.outside import entry_points_of_sentemb, import_class, import_problem
from sentemb.parts.settings import Setting, check_values, settings_of, shown

_bases: dict[str, type[Part]] = {}  # room -> the class that all its parts inherit


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
            _bases[room] = cls

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it was made with, defaults included."""
        return MappingProxyType(self._settings)

    @property
    def given_marks(self) -> Mapping[str, Any]:
        """The marks that were given."""
        return MappingProxyType(self.__dict__.get("_marks", {}))

    def marked(self, **marks: Any) -> Self:
        """A part of these settings and marks, with more or other marks, and no state; None takes a mark away.

        Raises:
            PartError: an unknown mark, or one of a wrong type.
        """
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
        values = self.settings.items()
        return {name: value for name, value in values if known[name].is_required or value != known[name].default}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Part):
            return NotImplemented
        is_alike = type(self) is type(other) and self.given_marks == other.given_marks
        return is_alike and self._settings == other._settings

    # By identity: torch keeps modules in sets, and two terms of equal settings are two modules.
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.changed_settings().items())
        marks = ", ".join(f"{name}={value!r}" for name, value in self.given_marks.items())
        return f"{type(self).__name__}({settings})" + (f".marked({marks})" if marks else "")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # so that pydantic reads parts anywhere: an instance, a name, or a table with `use`
        from pydantic_core import core_schema

        as_table = core_schema.plain_serializer_function_ser_schema(to_table)
        return core_schema.no_info_plain_validator_function(cls._read, serialization=as_table)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        from sentemb.parts.help import REFERENCE, unlinked_schema

        if not cls.room:
            return unlinked_schema(cls)
        own = {"type": "string", "pattern": "[:+]"}  # package.module:Class, or poolings joined by a plus
        return {"anyOf": [{REFERENCE: f"#/$defs/{cls.room}"}, {"enum": room(cls.room).names()}, own]}

    @classmethod
    def _read(cls, value: Any) -> Part:
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
    return type(value)(map(_fresh, value)) if type(value) in (list, tuple) else value


def to_table(part: Part) -> dict[str, Any]:
    """The TOML table that makes the part: its name, the settings that are not at their defaults, its marks."""
    settings = {name: _plain(value) for name, value in part.changed_settings().items()}
    name = {"use": room(part.room).name_of(type(part))} if part.room else {}
    return {**name, **settings, **part.given_marks}


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return to_table(value)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value))
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)


@dataclass(frozen=True, kw_only=True)
class Room:
    """One kind of part, and where its parts are listed."""

    name: str
    module: str
    summary: str
    attribute: str = "PARTS"

    def names(self) -> list[str]:
        """The parts that come with sentemb and with installed packages; imports none of them."""
        return sorted({*self._listed(), *self._installed()})

    def classes(self) -> dict[str, type[Part]]:
        """Every part by name."""
        return {name: self.find(name) for name in self.names()}

    def base(self) -> type[Part]:
        """The class that all parts of the room inherit."""
        importlib.import_module(self.module)
        return _bases[self.name]

    def find(self, use: object, *, may_import: bool = True) -> type[Part]:
        """The class of a name.

        Args:
            use: a name of this room, an entry point's, or ``package.module:Class``.
            may_import: False for names out of files that are not trusted: ``package.module:Class`` must be
                imported already.

        Raises:
            PartError: no such part, or a class that does not belong here.
        """
        if not isinstance(use, str):
            raise PartError("", [("", f'needs use = "…"; known: {", ".join(self.names())}')])
        listed, installed = self._listed(), self._installed()
        if use in listed:
            entry = listed[use]
            return import_class(entry) if isinstance(entry, str) else entry
        if use not in installed and ":" not in use:
            advice = 'a part of your own is "package.module:Class"'
            raise PartError("", [("use", f'= "{use}"{did_you_mean(use, self.names())}; {advice}')])
        if not may_import and use not in installed and use.partition(":")[0] not in sys.modules:
            raise PartError("", [("use", f'= "{use}": code from outside is imported only where it is trusted')])
        try:
            cls = installed[use].load() if use in installed else import_class(use)
        except Exception as error:
            raise PartError("", [("use", f'= "{use}": {import_problem(use, error)}')]) from error
        base = self.base()
        if not (isinstance(cls, type) and issubclass(cls, base)):
            advice = f"it must inherit {base.__module__}.{base.__name__}"
            raise PartError("", [("use", f'= "{use}" is no {base.__name__}: {advice}')])
        return cls

    def name_of(self, cls: type[Part]) -> str:
        """The name under which ``find`` gives the class."""
        path = f"{cls.__module__}:{cls.__qualname__}"
        listed = (name for name, entry in self._listed().items() if entry is cls or entry == path)
        installed = (name for name, entry in self._installed().items() if entry.value == path)
        return next(listed, None) or next(installed, path)

    def make(self, table: Mapping[str, Any]) -> Part:
        """The part of a TOML table ``{use = "…", setting = …}``; raises ``PartError`` with every fault."""
        settings = dict(table)
        cls = self.find(settings.pop("use", None))
        marks = {name: settings.pop(name) for name in cls.marks if name in settings}
        known_marks = {name: Setting(annotation=kind) for name, kind in cls.marks.items() if name in marks}
        faults = [*check_values(settings, settings_of(cls))[1], *check_values(marks, known_marks)[1]]
        if faults:
            raise PartError(cls.__name__, faults)
        part: Part = cls(**settings)
        return part.marked(**marks) if marks else part

    def _listed(self) -> Mapping[str, type[Part] | str]:
        parts: Mapping[str, type[Part] | str] = vars(importlib.import_module(self.module))[self.attribute]
        return parts

    def _installed(self) -> dict[str, EntryPoint]:
        prefix = f"{self.name}."
        entries = (entry for entry in entry_points_of_sentemb() if entry.name.startswith(prefix))
        return {entry.name.removeprefix(prefix): entry for entry in entries}


def _room(name: str, module: str, summary: str, *, attribute: str = "PARTS") -> tuple[str, Room]:
    return name, Room(name=name, module=f"sentemb.{module}", summary=summary, attribute=attribute)


ROOMS: Mapping[str, Room] = MappingProxyType(
    dict(
        [
            _room("sources", "data", "where training texts come from: [data]"),
            _room("views", "views", "what is encoded for one example: [views]"),
            _room("copies", "views", "further views made of a view: views.copies", attribute="COPIES"),
            _room("companions", "companions", "stateful helpers beside the encoder: [[companions]]"),
            _room("edits", "edits", "changes of the score table, in order: [[edits]]"),
            _room("terms", "terms", "losses with weights: [[terms]]"),
            _room("poolings", "encoder.poolings", "from token vectors to one vector: encoder.pooling"),
            _room("heads", "encoder.heads", "layers behind the pooling: encoder.heads"),
            _room("adapters", "encoder.adapters", "small trainable additions to a backbone: encoder.adapters"),
            _room("batches", "data.orders", "which rows make a batch: train.batches"),
            _room("optimizers", "training.optimizers", "how weights move: train.optimizer"),
            _room("schedules", "training.schedules", "how the learning rate changes: train.schedule"),
            _room("callbacks", "training.callbacks", "what is called while training: train(callbacks=[…])"),
            _room("kinds", "search.vectors", "kinds of vector index: sentemb index build --kind"),
            _room("mining_sources", "mining.sources", "where candidates for negatives come from: sentemb mine"),
            _room("mining_rules", "mining.rules", "which candidates become negatives: sentemb mine --rule"),
            _room("tasks", "evaluate.tasks", "what a model is scored on: suites, sentemb eval, [[dev]]"),
        ]
    )
)


def room(name: str) -> Room:
    """A room by name; raises ``PartError`` for an unknown one."""
    if name not in ROOMS:
        raise PartError("", [("", f'"{name}" is no kind of part{did_you_mean(name, ROOMS)}')])
    return ROOMS[name]
