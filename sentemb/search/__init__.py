"""Search indexes in a folder, and hard-negative mining on top of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentemb.search.index import SearchIndex
    from sentemb.search.store.documents import Document
    from sentemb.search.store.generation import Hit
    from sentemb.search.store.manifest import Passages
    from sentemb.search.store.options import BuildOptions
    from sentemb.search.store.syncing import Synced

__all__ = ["BuildOptions", "Document", "Hit", "Passages", "SearchIndex", "Synced"]
_HOME = {
    "BuildOptions": "store.options", "Document": "store.documents", "Hit": "store.generation",
    "Passages": "store.manifest", "SearchIndex": "index", "Synced": "store.syncing",
}


def __getattr__(name: str) -> Any:
    # faiss and SQLite are loaded by those who search, not by those who only look at the package
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
