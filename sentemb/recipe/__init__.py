"""Recipes: TOML → validated tree → built parts → a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentemb.recipe.inspect import check
    from sentemb.recipe.recipe import Recipe, load_recipe
    from sentemb.recipe.run import train

# a verb imports only what it needs: `list` and `show` load no training room
_HOME = {"check": "inspect", "Recipe": "recipe", "load_recipe": "recipe", "train": "run"}

__all__ = ["Recipe", "check", "load_recipe", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sentemb.recipe' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sentemb.recipe.{_HOME[name]}"), name)
