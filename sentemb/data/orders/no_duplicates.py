"""Batches in which no text recurs."""

from __future__ import annotations

import numpy as np

from sentemb.data.orders.order import BatchOrder, Deal, RowNumbers, cut
from sentemb.data.orders.repeated_texts import RepeatedTexts
from sentemb.data.orders.shuffled import Shuffled, full_sizes
from sentemb.errors import DataError
from sentemb.types import Examples

_LEFT_OUT_AT_MOST = 0.02
_ADVICE = 'use a smaller batch, or train.batches = "shuffled" together with the edit false_negative (by = text)'


class NoDuplicates(BatchOrder):
    """Shuffled batches in which no text occurs in two examples, in whichever columns.

    A text that is also another example's positive or negative would be a false negative. One example's own columns may
    be equal. Rows are dealt like cards, so that the rows of a frequent text land in different batches, and the few
    conflicts that remain are swapped away. Where a text occurs in more rows than there are batches, there are more and
    smaller batches, whose sizes differ by at most one. Rows that cannot be placed all the same (texts that fill nearly
    every batch, in several columns) are left out of that epoch, at most 2 % of them.

    Raises: DataError where texts recur so often that batches would be less than half full, or that more rows would be
        left out.
    Source: the in-batch rule of sentence-transformers' NoDuplicatesBatchSampler.
    Deviations: that sampler postpones conflicting rows; here they are dealt apart, so that no small batches pile up at
        the end of an epoch.
    """

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """One epoch deals a permutation to the batches."""
        texts = RepeatedTexts(examples)
        if texts.most <= 1:
            return Shuffled().dealer(examples, batch_size=batch_size)
        sizes = sizes_for(texts, len(examples), batch_size)

        def deal(generator: np.random.Generator) -> list[RowNumbers]:
            rows = generator.permutation(len(examples))[: sizes.sum()]
            rows = texts.deal(rows, sizes, generator)
            left_out = texts.repair(rows, sizes, generator, reach=len(rows))
            if left_out.mean() > _LEFT_OUT_AT_MOST:
                raise DataError(
                    f"texts recur in so many rows that batches of {batch_size:,} without duplicates leave "
                    f"{left_out.mean():.0%} of them out; {_ADVICE}"
                )
            return cut(rows, sizes, generator, left_out)

        return deal


def sizes_for(texts: RepeatedTexts, rows: int, batch_size: int) -> RowNumbers:
    """Sizes of as many batches as the most frequent text needs."""
    sizes = full_sizes(rows, batch_size)
    if texts.most <= len(sizes):
        return sizes
    if texts.most > 2 * len(sizes):
        raise DataError(
            f"one text occurs in {texts.most:,} of {rows:,} rows, so batches without duplicate texts would hold "
            f"{rows / texts.most:.1f} rows instead of {batch_size}; drop some of its rows, {_ADVICE}"
        )
    size, larger = divmod(rows, texts.most)
    return size + (np.arange(texts.most) < larger).astype(np.int64)
