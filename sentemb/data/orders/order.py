"""What a batch order is, and the batches of a data set, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError
from sentemb.parts import Part
from sentemb.types import Examples

RowNumbers = NDArray[np.int64]
Deal = Callable[[np.random.Generator], Sequence[RowNumbers]]


class BatchOrder(Part, room="batches"):
    """Decides which rows of the data are contrasted with one another, and in which order.

    An order of one's own subclasses this and implements ``dealer``.
    """

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """Look at the data once; the result makes one epoch: the row numbers of every batch.

        The number of batches must be the same in every epoch. Randomness comes from the generator alone, so that every
        device makes the same batches.
        """
        raise NotImplementedError


class Batches:
    """The batches of a data set, epoch by epoch, decided by (seed, epoch) and the data alone.

    Every device makes the same ones and takes its slice, and a run that resumes at batch k of an epoch asks for
    ``epoch(e, start=k)``. ``len()`` is the same in every epoch.

    Raises:
        DataError: the data have no rows, or the order makes no batches of them.
    """

    def __init__(self, examples: Examples, order: BatchOrder, *, batch_size: int, seed: int) -> None:
        if len(examples) == 0:
            raise DataError("the data have no rows")
        self.seed = seed
        self._deal = order.dealer(examples, batch_size=batch_size)
        self._dealt: tuple[int, Sequence[RowNumbers]] = (0, self._deal(self._generator(0)))
        self._count = len(self._dealt[1])
        self.smallest = min(map(len, self._dealt[1]), default=0)
        if self.smallest == 0:
            raise DataError(f"{order!r} makes no batch, or an empty one, of {len(examples):,} rows")

    def __len__(self) -> int:
        return self._count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[RowNumbers]:
        """The batches of one epoch from batch ``start`` on."""
        if self._dealt[0] != epoch:
            self._dealt = (epoch, self._deal(self._generator(epoch)))
        return iter(self._dealt[1][start:])

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch]))


def cut(
    rows: RowNumbers, sizes: RowNumbers, generator: np.random.Generator, left_out: NDArray[np.bool_] | None = None
) -> list[RowNumbers]:
    """Rows that lie batch after batch, as batches in random order."""
    used = np.ones(len(rows), dtype=bool) if left_out is None else ~left_out
    ends = np.cumsum(sizes)
    batches = [rows[end - size : end][used[end - size : end]] for end, size in zip(ends, sizes, strict=True)]
    return [batches[index] for index in generator.permutation(len(batches))]
