"""Batches of texts of similar length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sentemb.data.orders.no_duplicates import sizes_for
from sentemb.data.orders.order import BatchOrder, Deal, RowNumbers, cut
from sentemb.data.orders.repeated_texts import RepeatedTexts
from sentemb.parts import Count
from sentemb.types import Examples


@dataclass(frozen=True, kw_only=True)
class ByLength(BatchOrder):
    """As ``no_duplicates``, but rows are sorted by token count inside shuffled windows of ``window`` batches.

    That saves padding, and it changes the training signal: the in-batch negatives then have nearly the anchor's own
    length, so length stops being a cue. Leave it to reproduce published numbers.

    Args:
        window: batches that share their rows; more save more padding and shuffle less.
    Raises: DataError as ``no_duplicates``.
    Source: common practice in machine translation, e.g. fairseq's batches by size.
    Deviations: none.
    """

    window: Count = 50

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """One epoch is a permutation, sorted inside every window."""
        texts = RepeatedTexts(examples)
        sizes = sizes_for(texts, len(examples), batch_size)
        window = np.repeat(np.arange(len(sizes)) // self.window, sizes)
        lengths: RowNumbers = np.max([column.lengths for column in examples.columns.values()], axis=0)

        def deal(generator: np.random.Generator) -> list[RowNumbers]:
            rows = generator.permutation(len(examples))[: sizes.sum()]
            rows = rows[np.lexsort((lengths[rows], window))]
            left_out = texts.repair(rows, sizes, generator, reach=self.window * batch_size)
            return cut(rows, sizes, generator, left_out)

        return deal
