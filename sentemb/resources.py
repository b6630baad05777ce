"""Where the files that travel with sentemb lie: recipes, evaluation suites, published scores.

In a wheel they are under ``sentemb/_share``; in a source checkout (also an editable install) they are the
top-level folders of the repository.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def share_dir(*parts: str) -> Path:
    """The folder ``parts`` (e.g. ``"eval", "suites"``) of the files that travel with sentemb."""
    installed = _PACKAGE / "_share"
    root = installed if installed.is_dir() else _PACKAGE.parent
    return root.joinpath(*parts)


def recipes_dir() -> Path:
    """The folder of the recipes that come with sentemb."""
    return share_dir("recipes")
