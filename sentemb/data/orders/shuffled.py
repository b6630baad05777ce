"""Batches of a plain shuffle."""

from __future__ import annotations

import numpy as np

from sentemb.data.orders.order import BatchOrder, Deal, RowNumbers, cut
from sentemb.types import Examples


class Shuffled(BatchOrder):
    """A random permutation of the rows, cut into batches; the rows of a last, smaller batch are left out.

    Another epoch leaves out other rows. Unlike ``no_duplicates``, a text may recur in a batch, where it is a false
    negative; that is what most released code does.

    Source: Gao, Yao & Chen 2021, EMNLP, "SimCSE" (released code).
    Deviations: the released code trains on the last, smaller batch too.
    """

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """One epoch is one permutation."""
        sizes = full_sizes(len(examples), batch_size)

        def deal(generator: np.random.Generator) -> list[RowNumbers]:
            return cut(generator.permutation(len(examples))[: sizes.sum()], sizes, generator)

        return deal


def full_sizes(rows: int, batch_size: int) -> RowNumbers:
    """Sizes of the full batches that the rows make; of one smaller batch where they do not fill one."""
    return np.full(max(rows // batch_size, 1), min(rows, batch_size), dtype=np.int64)
