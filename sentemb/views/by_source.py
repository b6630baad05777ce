"""Views that differ from source to source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sentemb.errors import DataError
from sentemb.types import Examples, ViewContext, Views
from sentemb.views.view import ViewMaker


class BySource(ViewMaker):
    """Every source of a mixture has a view maker of its own:

        [views]
        use = "by_source"
        makers = { search = "columns", wiki = "twice", notes = { use = "repeat", count = 3 } }

    Without it all sources have the recipe's one maker, which suits sources of the same columns.

    Args:
        makers: name of a source -> what makes its views; every source of the mixture is named.
    Raises: DataError where a batch comes from a source that is not named.
    Source: none.
    Deviations: ours.
    """

    def __init__(self, *, makers: Mapping[str, ViewMaker]) -> None:
        self.makers = dict(makers)
        if not self.makers:
            raise ValueError("makers is empty; it names a view maker for every source of the mixture")
        self.needs = frozenset().union(*(maker.needs for maker in self.makers.values()))

    def of(self, source: str) -> ViewMaker:
        """The maker of this source."""
        if source not in self.makers:
            absent = f'the source "{source}"' if source else "data without named sources"
            raise DataError(f"views (by_source): makers names {', '.join(self.makers)}, and not {absent}")
        return self.makers[source].of(source)

    def makes(self, columns: Collection[str]) -> tuple[str, ...]:
        """What the makers of all sources make of these columns."""
        return tuple(dict.fromkeys(view for maker in self.makers.values() for view in maker.makes(columns)))

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Those of the makers, each beside the source that it is for."""
        sources = recipe["data"].sources if "data" in recipe else {}
        return [
            f'source "{name}": {fault}' for name, maker in self.makers.items() if name in sources
            for fault in maker.faults({**recipe, "data": sources[name]})
        ]

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """The views of the batch's source."""
        return self.of(context.source)(examples, context)
