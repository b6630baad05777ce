"""sentemb: train, evaluate and search with sentence embeddings.

The public names below are imported when they are first used, so that ``import sentemb`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentemb.encoder import Encoder
    from sentemb.mining.run import mine
    from sentemb.recipe import check, load_recipe, train
    from sentemb.search import SearchIndex

__version__ = "0.1.0"

_HOME = {
    "Encoder": "sentemb.encoder",
    "SearchIndex": "sentemb.search",
    "check": "sentemb.recipe",
    "load_recipe": "sentemb.recipe",
    "mine": "sentemb.mining.run",
    "train": "sentemb.recipe",
}

__all__ = ["Encoder", "SearchIndex", "__version__", "check", "load_recipe", "mine", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sentemb' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
