"""Equal values once: the one place where texts that recur are found."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Distinct(Generic[Value]):
    """The different values of a sequence, in the order in which they first occur.

    Attributes:
        values: each once.
        position: for every row of the sequence, its value's place in ``values``: ``vectors[position]`` spreads what
            was computed for ``values`` over the rows.
    """

    values: list[Value]
    position: NDArray[np.int64]

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """For every one of ``values``, the row where it first stands."""
        rows = np.empty(len(self.values), dtype=np.int64)
        rows[self.position[::-1]] = np.arange(len(self.position))[::-1]  # backwards: the first of equal rows stays
        return rows

    @property
    def repeated(self) -> NDArray[np.int64]:
        """Rows whose value stands in an earlier row already."""
        return np.flatnonzero(self.first[self.position] != np.arange(len(self.position)))


def distinct(values: Iterable[Value]) -> Distinct[Value]:
    """Find equal values, of one column or of several behind one another."""
    number: dict[Value, int] = {}
    position = np.fromiter((number.setdefault(value, len(number)) for value in values), dtype=np.int64)
    return Distinct(values=list(number), position=position)
