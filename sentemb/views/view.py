"""What makers and copies of views keep to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import AfterValidator

from sentemb.data import Table, tokenise
from sentemb.data.tokens import TextTokeniser
from sentemb.parts import Part
from sentemb.types import Examples, Names, ViewContext, Views


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("must name every view once")
    return tuple(names)


ViewNames = Annotated[Sequence[str], MinLen(1), AfterValidator(_distinct)]


class ViewMaker(Part, room="views"):
    """Says what is encoded for one example: ``maker(examples, context) -> Views``.

    Attributes:
        columns: columns of the data it must have.
        together: groups of them of which a row may lack all but one.
        needs_dropout: whether its views of an example are one text, which the backbone's dropout alone tells apart.
    """

    columns: frozenset[str] = frozenset()
    together: tuple[frozenset[str], ...] = ()
    needs_dropout: bool = False

    def of(self, source: str) -> ViewMaker:
        """What makes the views of this source of a mixture; nearly always the maker itself."""
        return self

    def makes(self, columns: Collection[str]) -> tuple[str, ...]:
        """Names of the views it makes of data with these columns; the default says anchor and positive."""
        return ("anchor", "positive")

    def texts(self, columns: Collection[str]) -> int:
        """How many texts of an example are encoded for those views; the default says one for each."""
        return len(self.makes(columns))

    @property
    def prompts(self) -> tuple[str, ...] | None:
        """The templates that it writes texts into itself; None where ``data.prefixes`` say them."""
        return None

    def read(self, table: Table, tokeniser: TextTokeniser) -> Examples:
        """The data's token ids, once at the start of training; the default tokenises the columns as they are."""
        return tokenise(table, tokeniser)

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """What is wrong with it among the other fields of a recipe (by name; those that are wrong are absent)."""
        return []

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """The views of a batch."""
        raise NotImplementedError


class ViewCopy(Part, room="copies"):
    """Makes further views of those there are: ``copy(views, context) -> Views``, the added ones only.

    ``only = ["NAME", …]`` keeps it to batches of these sources of a mixture.

    Attributes:
        makes: names of the views it adds.
    """

    marks = MappingProxyType({"only": Names})
    makes: tuple[str, ...] = ()

    def __call__(self, views: Views, context: ViewContext) -> Views:
        """The added views of a batch."""
        raise NotImplementedError
