"""Batches of row numbers: shuffled by (seed, epoch), without duplicate texts, equal on every device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentemb.data.duplicates import RepeatedTexts
from sentemb.errors import DataError
from sentemb.types import Examples

Rows = NDArray[np.int64]
_LEFT_OUT_AT_MOST = 0.02


@dataclass(frozen=True)
class _Plan:
    """One epoch: row numbers batch after batch, those of them to leave out, and the order of the batches."""

    rows: Rows
    left_out: NDArray[np.bool_]
    order: Rows


class Batches:
    """The batches of a data set, epoch by epoch.

    ``epoch(e)`` yields arrays of row numbers. They depend on (seed, epoch) and the data alone: every device makes
    the same ones and takes its slice, and a run that resumes at batch k of an epoch asks for ``epoch(e, start=k)``.
    ``len()`` is exact and the same in every epoch.

    With ``no_duplicates`` no text occurs in two examples of a batch, in whichever columns: the same text as
    another example's positive or negative would be a false negative. One example's own columns may be equal.
    Rows are dealt so that the rows of a frequent text land in different batches, and the few conflicts that
    remain are swapped away. Where a text occurs in more rows than there are batches, there are more and smaller
    batches (sizes differ by at most one), so that every row is still used. Rows that cannot be placed all the same
    (texts that fill nearly every batch, in several columns) are left out of that epoch, at most 2 % of them.

    With ``bucket_batches`` = w > 1, rows are sorted by token count inside shuffled windows of w batches. That saves
    padding, and it changes the training signal: in-batch negatives then have nearly the anchor's own length, so
    length stops being a cue. Leave it at 1 to reproduce published numbers.

    Args:
        batch_size: rows a batch over all devices together.
        no_duplicates: see above.
        drop_last: leave out the rows of a last, smaller batch (other rows in every epoch).
        bucket_batches: see above.

    Raises: DataError where there are fewer rows than one batch (with ``drop_last``), or where texts recur so often
        that batches without duplicates would be less than half full or would leave out more rows than that.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        seed: int,
        no_duplicates: bool = True,
        drop_last: bool = False,
        bucket_batches: int = 1,
    ) -> None:
        rows = len(examples)
        if batch_size < 1 or bucket_batches < 1:
            raise ValueError("batch_size and bucket_batches must be at least 1")
        if rows == 0 or (drop_last and rows < batch_size):
            raise DataError(f"the data have {rows:,} rows, fewer than one batch of {batch_size:,}; use a smaller batch")
        self.batch_size, self.seed, self.drop_last, self.bucket_batches = batch_size, seed, drop_last, bucket_batches
        self._rows = rows
        repeated = RepeatedTexts(examples) if no_duplicates else None
        self._repeated = repeated if repeated is not None and repeated.most > 1 else None
        self._lengths = _token_counts(examples) if bucket_batches > 1 else None
        self.sizes = self._batch_sizes()
        self._planned: tuple[int, _Plan] = (0, self._plan(0))
        lost = float(self._planned[1].left_out.mean())
        if lost > _LEFT_OUT_AT_MOST:
            raise DataError(
                f"texts recur in so many rows that batches of {batch_size:,} without duplicates leave {lost:.0%} "
                "of them out; use a smaller batch, or set no_duplicates = false together with the edit false_negative"
            )

    def _batch_sizes(self) -> NDArray[np.int64]:
        """Rows of every batch, in the order in which they are dealt."""
        full, rest = divmod(self._rows, self.batch_size)
        count = full if self.drop_last else full + bool(rest)
        most = 0 if self._repeated is None else self._repeated.most
        if most <= count:
            sizes = np.full(count, self.batch_size, dtype=np.int64)
            if rest and not self.drop_last:
                sizes[-1] = rest
            return sizes
        if most > 2 * count:
            raise DataError(
                f"one text occurs in {most:,} of {self._rows:,} rows, so batches without duplicate texts would hold "
                f"{self._rows / most:.1f} rows instead of {self.batch_size}; use a smaller batch, drop some of its "
                "rows, or set no_duplicates = false together with the edit false_negative (by = text)"
            )
        used = min(self._rows, count * self.batch_size) if self.drop_last else self._rows
        return np.full(most, used // most, dtype=np.int64) + (np.arange(most) < used % most)

    def __len__(self) -> int:
        return len(self.sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Rows]:
        """The batches of one epoch from batch ``start`` on; nothing before it is replayed."""
        if self._planned[0] != epoch:
            self._planned = (epoch, self._plan(epoch))
        plan = self._planned[1]
        bounds = np.concatenate([[0], np.cumsum(self.sizes)])
        for batch in plan.order[start:]:
            span = slice(bounds[batch], bounds[batch + 1])
            yield plan.rows[span][~plan.left_out[span]]

    def _plan(self, epoch: int) -> _Plan:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        rows = generator.permutation(self._rows)[: int(self.sizes.sum())]
        left_out = np.zeros(len(rows), dtype=bool)
        if self._lengths is not None:
            rows = self._bucketed(rows)
        elif self._repeated is not None:
            rows = self._repeated.deal(rows, self.sizes, generator)
        if self._repeated is not None:
            reach = len(rows) if self._lengths is None else self.bucket_batches * self.batch_size
            left_out = self._repeated.repair(rows, self.sizes, generator, reach)
        order = np.arange(len(self))
        # a smaller last batch stays last
        movable = len(self) - int(self.sizes[-1] < self.batch_size <= self.sizes[0])
        order[:movable] = generator.permutation(movable)
        return _Plan(rows, left_out, order)

    def _bucketed(self, rows: Rows) -> Rows:
        """Sort rows by token count inside every window of ``bucket_batches`` batches."""
        assert self._lengths is not None
        window = np.repeat(np.arange(len(self.sizes)) // self.bucket_batches, self.sizes)
        return rows[np.lexsort((self._lengths[rows], window))]


def _token_counts(examples: Examples) -> NDArray[np.int64]:
    """The longest column's token count of every row."""
    lengths: Rows = np.max([column.lengths for column in examples.columns.values()], axis=0)
    return lengths
