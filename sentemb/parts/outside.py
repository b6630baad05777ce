"""Classes from outside: ``package.module:Class``, and entry points of installed packages."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any


@functools.cache
def entry_points_of_sentemb() -> tuple[EntryPoint, ...]:
    """What installed packages add, named ``ROOM.NAME``."""
    return tuple(entry_points(group="sentemb"))


def import_class(path: str) -> Any:
    """``package.module:Class``; modules may lie in the current folder, as for ``python -m``."""
    module, _, name = path.partition(":")
    before = list(sys.path)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    finally:
        sys.path[:] = before


def import_problem(use: str, error: Exception) -> str:
    """Why a class cannot be had, in a user's words."""
    module, _, name = use.partition(":")
    if isinstance(error, ModuleNotFoundError) and error.name and module.startswith(error.name):
        return f"no module {error.name}, neither installed nor in {os.getcwd()}; run in the folder that has it"
    if isinstance(error, AttributeError) and module in sys.modules:
        return f"{module} has no class {name}"
    return f"{module} cannot be imported ({type(error).__name__}: {error})"
