"""Which texts are the same: content hashes, and the one place where texts that recur are found."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
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


def text_hashes(texts: Sequence[str]) -> NDArray[np.int64]:
    """A 63-bit hash of every text, (texts,): non-negative, the same on every machine and in every run.

    BLAKE2b cut to 63 bits: among a million distinct texts, the chance that any two collide is 5e-8.
    The sign bit stays free because -1 marks rows that are no text.
    """
    # surrogatepass: a str from outside our readers may hold lone surrogates, and hashing must not fail on them
    digests = b"".join([blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts])
    return np.frombuffer(digests, dtype="<i8").astype(np.int64) & np.int64(2**63 - 1)
