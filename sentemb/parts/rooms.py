"""Rooms: the kinds of parts, where each is listed, and how a name becomes a class, also one from outside sentemb."""

from __future__ import annotations

import functools
import os
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from sentemb.errors import PartError, did_you_mean
from sentemb.parts.part import BASES, Part
from sentemb.parts.settings import Setting, check_values, settings_of


@functools.cache
def entry_points_of_sentemb() -> tuple[EntryPoint, ...]:
    """What installed packages add, named ``ROOM.NAME``."""
    return tuple(entry_points(group="sentemb"))


def import_class(path: str) -> Any:
    """``package.module:Class``; modules may lie in the current folder, as for ``python -m``."""
    before = list(sys.path)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return pkgutil.resolve_name(path)
    finally:
        sys.path[:] = before


def _import_problem(use: str, error: Exception) -> str:
    """Why a class cannot be had, in a user's words."""
    module, _, name = use.partition(":")
    if isinstance(error, ModuleNotFoundError) and error.name and module.startswith(error.name):
        return f"no module {error.name}, neither installed nor in {os.getcwd()}; run in the folder that has it"
    if isinstance(error, AttributeError) and module in sys.modules:
        return f"{module} has no class {name}"
    return f"{module} cannot be imported ({type(error).__name__}: {error})"


@dataclass(frozen=True, kw_only=True)
class Room:
    """One kind of part, and where its parts are listed."""

    name: str
    attribute_path: str  # of the list: module:ATTRIBUTE
    summary: str

    def names(self) -> list[str]:
        """The parts that come with sentemb and with installed packages; imports none of them."""
        return sorted({*self._listed(), *self._installed()})

    def classes(self) -> dict[str, type[Part]]:
        """Every part by name."""
        return {name: self.find(name) for name in self.names()}

    def find(self, use: object, *, may_import: bool = True) -> type[Part]:
        """The class of a name of this room, of an entry point's, or of ``package.module:Class``, or a ``PartError``.

        ``may_import=False`` is for names out of files that are not trusted: its module must be imported already.
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
            raise PartError("", [("use", f'= "{use}": {_import_problem(use, error)}')]) from error
        base = BASES[self.name]
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
        known = {name: Setting(annotation=kind, default=None) for name, kind in cls.marks.items()}
        faults = [*check_values(settings, settings_of(cls))[1], *check_values(marks, known)[1]]
        if faults:
            raise PartError(cls.__name__, faults)
        part: Part = cls(**settings)
        return part.marked(**marks) if marks else part

    def _listed(self) -> Mapping[str, type[Part] | str]:
        parts: Mapping[str, type[Part] | str] = pkgutil.resolve_name(self.attribute_path)
        return parts

    def _installed(self) -> dict[str, EntryPoint]:
        prefix = f"{self.name}."
        entries = entry_points_of_sentemb()
        return {entry.name.removeprefix(prefix): entry for entry in entries if entry.name.startswith(prefix)}


ROOMS: Mapping[str, Room] = MappingProxyType({
    name: Room(name=name, attribute_path=f"sentemb.{attribute_path}", summary=summary)
    for name, attribute_path, summary in (
        ("sources", "data:PARTS", "where training texts come from: [data]"),
        ("makers", "data.makers:PARTS", "training data made of what you have: sentemb data make"),
        ("turns", "data.turns:PARTS", "which source of a mixture gives the next batch: data.schedule"),
        ("views", "views:PARTS", "what is encoded for one example: [views]"),
        ("copies", "views:COPIES", "further views made of a view: views.copies"),
        ("companions", "companions:PARTS", "stateful helpers beside the encoder: [[companions]]"),
        ("edits", "edits:PARTS", "changes of the score table, in order: [[edits]]"),
        ("terms", "terms:PARTS", "losses with weights: [[terms]]"),
        ("poolings", "encoder.poolings:PARTS", "from token vectors to one vector: encoder.pooling"),
        ("heads", "encoder.heads:PARTS", "layers behind the pooling: encoder.heads"),
        ("adapters", "encoder.adapters:PARTS", "small trainable additions to a backbone: encoder.adapters"),
        ("batches", "data.orders:PARTS", "which rows make a batch: train.batches"),
        ("optimizers", "training.optimizers:PARTS", "how weights move: train.optimizer"),
        ("schedules", "training.optimizers:SCHEDULES", "how the learning rate changes: train.schedule"),
        ("callbacks", "training.callbacks:PARTS", "what is called while training: train(callbacks=[…])"),
        ("kinds", "search.vectors:PARTS", "kinds of vector index: sentemb index build --kind"),
        ("mining_sources", "mining.sources:PARTS", "where candidates for negatives come from: sentemb mine"),
        ("mining_rules", "mining.rules:PARTS", "which candidates become negatives: sentemb mine --rule"),
        ("classifiers", "classify:PARTS", "how texts get labels: sentemb classify fit --method"),
        ("rerank_losses", "rerank.losses:PARTS", "what a cross-encoder learns: sentemb rerank train --loss"),
        ("tasks", "evaluate.tasks:PARTS", "what a model is scored on: suites, sentemb eval, [[dev]]"),
    )
})


def room(name: str) -> Room:
    """A room by name; raises ``PartError`` for an unknown one."""
    if name not in ROOMS:
        raise PartError("", [("", f'"{name}" is no kind of part{did_you_mean(name, ROOMS)}')])
    return ROOMS[name]
