"""How a part gets the companion that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from sentemb.errors import RecipeError
from sentemb.parts import room
from sentemb.types import Companion

C = TypeVar("C", bound=Companion)


def find_companion(companions: Mapping[str, Companion], name: str, kind: type[C], part: str) -> C:
    """The companion of that name.

    Raises:
        RecipeError: it is not in the recipe, or another kind of companion bears its name.
    """
    companion = companions.get(name)
    if isinstance(companion, kind):
        return companion
    there = "there is none" if companion is None else f"the one of that name is a {type(companion).__name__}"
    raise RecipeError(
        f'{part}: needs the companion "{name}" ({kind.__name__}), but {there}; companions of the recipe: '
        f'{", ".join(sorted(companions)) or "none"}. Add [[companions]] use = "{room("companions").name_of(kind)}"'
    )
