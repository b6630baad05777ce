"""Batch orders: which rows of the data make a batch, and the batches of a data set, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentemb.data.repeated_texts import RepeatedTexts, RowNumbers
from sentemb.errors import DataError
from sentemb.parts import Count, Part
from sentemb.types import Examples

Deal = Callable[[np.random.Generator], Sequence[RowNumbers]]

_LEFT_OUT_AT_MOST = 0.02
_ADVICE = 'use a smaller batch, or train.batches = "shuffled" together with the edit false_negative (by = text)'


class BatchOrder(Part, room="batches"):
    """Decides which rows of the data are contrasted with one another; an order of one's own implements ``dealer``.

    One that needs ``companion:NAME`` is asked when the companions are prepared, and sees that companion's ``groups()``
    as the labels of the examples.
    """

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """Look at the data once; the result makes one epoch: the row numbers of every batch.

        The number of batches must be the same in every epoch. Randomness comes from the generator alone, so that every
        device makes the same batches.
        """
        raise NotImplementedError


class Shuffled(BatchOrder):
    """A random permutation of the rows, cut into batches; the rows of a last, smaller batch are left out.

    Another epoch leaves out other rows. Unlike ``no_duplicates``, a text may recur in a batch, where it is a false
    negative; that is what most released code does.

    Source: Gao, Yao & Chen 2021, EMNLP, "SimCSE" (released code).
    Deviations: the released code trains on the last, smaller batch too.
    """

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """One epoch is one permutation."""
        sizes = _full_sizes(len(examples), batch_size)
        return lambda generator: _cut(generator.permutation(len(examples))[: sizes.sum()], sizes, generator)


class NoDuplicates(BatchOrder):
    """Shuffled batches in which no text occurs in two examples, in whichever columns.

    A text that is also another example's positive or negative would be a false negative. One example's own columns may
    be equal. Rows are dealt like cards, so that the rows of a frequent text land in different batches, and the few
    conflicts that remain are swapped away. Where a text occurs in more rows than there are batches, there are more and
    smaller batches. Rows that cannot be placed all the same are left out of that epoch, at most 2 % of them.

    Raises: DataError where texts recur so often that batches would be less than half full, or that more are left out.
    Source: the in-batch rule of sentence-transformers' NoDuplicatesBatchSampler.
    Deviations: that sampler postpones conflicting rows; here they are dealt apart, so that no small batches pile up at
        the end of an epoch.
    """

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """One epoch deals a permutation to the batches."""
        texts = RepeatedTexts(examples)
        if texts.most <= 1:
            return Shuffled().dealer(examples, batch_size=batch_size)
        sizes = _sizes_for(texts, len(examples), batch_size)

        def deal(generator: np.random.Generator) -> list[RowNumbers]:
            rows = generator.permutation(len(examples))[: sizes.sum()]
            rows = texts.deal(rows, sizes, generator)
            batch_of = np.repeat(np.arange(len(sizes)), sizes)
            first, end = np.broadcast_to(0, len(rows)), np.broadcast_to(len(rows), len(rows))
            left_out = texts.repair(rows, batch_of, generator, first=first, end=end)
            refuse_losses(left_out, batch_size)
            return _cut(rows, sizes, generator, left_out)

        return deal


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
        sizes = _sizes_for(texts, len(examples), batch_size)
        batch_of = np.repeat(np.arange(len(sizes)), sizes)
        window = batch_of // self.window
        position, reach = np.arange(len(batch_of)), self.window * batch_size
        first, end = np.maximum(position - reach, 0), np.minimum(position + reach + 1, len(position))
        lengths: RowNumbers = np.max([column.lengths for column in examples.columns.values()], axis=0)

        def deal(generator: np.random.Generator) -> list[RowNumbers]:
            rows = generator.permutation(len(examples))[: sizes.sum()]
            rows = rows[np.lexsort((lengths[rows], window))]
            left_out = texts.repair(rows, batch_of, generator, first=first, end=end)
            return _cut(rows, sizes, generator, left_out)

        return deal


PARTS: dict[str, type[BatchOrder] | str] = {
    "by_length": ByLength, "contiguous": "sentemb.data.contiguous:Contiguous",
    "grouped": "sentemb.data.grouped:Grouped", "no_duplicates": NoDuplicates,
    "shuffled": Shuffled,
}


class Batches:
    """The batches of a data set, epoch by epoch, decided by (seed, epoch) and the data alone.

    Every device makes the same ones and takes its slice; a run that resumes at batch k asks for ``epoch(e, start=k)``.

    Raises: DataError where the order makes no batches of the data.
    """

    def __init__(self, examples: Examples, order: BatchOrder, *, batch_size: int, seed: int) -> None:
        self.seed = seed
        self._deal = order.dealer(examples, batch_size=batch_size)
        self._dealt = 0, self._epoch(0)
        self.smallest = min(map(len, self._dealt[1]), default=0)
        if self.smallest == 0:
            raise DataError(f"{order!r} makes no batch, or an empty one, of {len(examples):,} rows")

    def __len__(self) -> int:
        return len(self._dealt[1])

    def epoch(self, epoch: int, start: int = 0) -> Iterator[RowNumbers]:
        """The batches of one epoch from batch ``start`` on."""
        if self._dealt[0] != epoch:
            self._dealt = epoch, self._epoch(epoch)
        return iter(self._dealt[1][start:])

    def _epoch(self, epoch: int) -> Sequence[RowNumbers]:
        return self._deal(np.random.Generator(np.random.Philox(key=[self.seed, epoch])))


def refuse_losses(left_out: NDArray[np.bool_], batch_size: int) -> None:
    """Refuse to leave out more than a few rows because of their texts."""
    if left_out.mean() > _LEFT_OUT_AT_MOST:
        raise DataError(
            f"texts recur in so many rows that batches of {batch_size:,} without duplicates leave "
            f"{left_out.mean():.0%} of them out; {_ADVICE}"
        )


def _full_sizes(rows: int, batch_size: int) -> RowNumbers:
    """Sizes of the full batches that the rows make; of one smaller batch where they do not fill one."""
    return np.full(max(rows // batch_size, 1), min(rows, batch_size), dtype=np.int64)


def _sizes_for(texts: RepeatedTexts, rows: int, batch_size: int) -> RowNumbers:
    """Sizes of as many batches as the most frequent text needs."""
    sizes = _full_sizes(rows, batch_size)
    if texts.most <= len(sizes):
        return sizes
    if texts.most > 2 * len(sizes):
        raise DataError(
            f"one text occurs in {texts.most:,} of {rows:,} rows, so batches without duplicate texts would hold "
            f"{rows / texts.most:.1f} rows instead of {batch_size}; drop some of its rows, {_ADVICE}"
        )
    size, larger = divmod(rows, texts.most)
    return size + (np.arange(texts.most) < larger).astype(np.int64)


def _cut(
    rows: RowNumbers, sizes: RowNumbers, generator: np.random.Generator, left_out: NDArray[np.bool_] | None = None
) -> list[RowNumbers]:
    """Rows that lie batch after batch, as batches in random order."""
    ends = np.cumsum(sizes)[:-1]
    batches = np.split(rows, ends)
    if left_out is not None:
        batches = [batch[~out] for batch, out in zip(batches, np.split(left_out, ends), strict=True)]
    return [batches[index] for index in generator.permutation(len(batches))]
