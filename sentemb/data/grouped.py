"""Batches of a few groups with equally many rows each."""

from __future__ import annotations

import numpy as np

from sentemb.data.orders import BatchOrder, Deal, refuse_losses
from sentemb.data.repeated_texts import RepeatedTexts, RowNumbers
from sentemb.errors import DataError
from sentemb.parts import Count
from sentemb.types import UNKNOWN, Examples


class Grouped(BatchOrder):
    """Every batch has rows of exactly ``groups`` different groups, batch_size / groups of each.

    The rows of a group are shuffled and dealt in pieces of equal size, of batch_size / groups rows at most; a small
    group is one smaller piece. Pieces are dealt to batches at random. Every row has its turn in an epoch, with two
    exceptions, which are other rows in every epoch: fewer than ``groups`` pieces that fill no batch, and what a large
    group has beyond one piece a batch. In a batch no text occurs in two examples, as with ``no_duplicates``.

    Many groups make class-balanced batches for ``same_label``. One group a batch makes every negative hard: clusters of
    the companion ``prototypes`` (``by = "prototypes"``) are the cheapest sampler of hard negatives.

    Args:
        groups: groups in a batch; batch_size makes all rows of a batch differ in their group.
        by: ``label`` for the classes of the data, or the name of a companion that groups them (``prototypes``).
    Raises: DataError where the data have fewer groups, rows without a group, or texts that recur too often.
    Source: batches of one cluster: released code of "MCL"; of equally many rows a class: Schroff, Kalenichenko &
        Philbin 2015, CVPR, "FaceNet", section 3.2.
    Deviations: MCL draws its clusters in turn, here in random order.
    """

    def __init__(self, *, groups: Count, by: str = "label") -> None:
        self.groups, self.by = groups, by
        self.needs = frozenset({"labels" if by == "label" else f"companion:{by}"})

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """One epoch deals the pieces of every group to the batches."""
        group = self._numbers(examples)
        size = np.bincount(group)
        pieces = -(-size // max(batch_size // self.groups, 1))
        count = most_batches(pieces, self.groups)
        texts = RepeatedTexts(examples)

        def deal(generator: np.random.Generator) -> list[RowNumbers]:
            rank = generator.permutation(len(size))  # of every group in the order in which its pieces are dealt
            rows = generator.permutation(len(group))
            rows = rows[np.argsort(rank[group[rows]], kind="stable")]
            order = np.argsort(rank)
            used = without_some(np.minimum(pieces, count)[order], count * self.groups, generator)
            turn = rank[group[rows]]
            index = np.arange(len(rows)) - (np.cumsum(size[order]) - size[order])[turn]
            piece = index * pieces[order][turn] // size[order][turn]
            is_used = piece < used[turn]
            rows, turn, piece = rows[is_used], turn[is_used], piece[is_used]
            batch_of = dealt_apart(used, count, generator)[(np.cumsum(used) - used)[turn] + piece]
            first = np.searchsorted(turn, turn)
            end = np.searchsorted(turn, turn, side="right")
            left_out = texts.repair(rows, batch_of, generator, first=first, end=end)
            refuse_losses(left_out, batch_size)
            rows, batch_of = rows[~left_out], batch_of[~left_out]
            by_batch = np.argsort(batch_of, kind="stable")
            return np.split(rows[by_batch], np.cumsum(np.bincount(batch_of, minlength=count))[:-1])

        return deal

    def _numbers(self, examples: Examples) -> RowNumbers:
        """Groups of the rows, numbered from 0."""
        label = examples.label
        if label is None:
            raise DataError('train.batches = "grouped" needs the column label, or by = the name of a companion')
        unknown = int((label == UNKNOWN).sum())
        if unknown:
            raise DataError(
                f'train.batches = "grouped": {unknown:,} of {len(label):,} rows have no known group (label {UNKNOWN}); '
                "leave them out or give them one"
            )
        names, group = np.unique(label, return_inverse=True)
        if len(names) < self.groups:
            raise DataError(
                f'train.batches = "grouped": groups = {self.groups}, but the data have {len(names)}; lower groups'
            )
        return group.astype(np.int64)


def most_batches(pieces: RowNumbers, groups: int) -> int:
    """The most batches that can each have pieces of ``groups`` different groups."""
    low, high = 0, int(pieces.sum()) // groups
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(pieces, middle).sum() >= groups * middle:
            low = middle
        else:
            high = middle - 1
    return low


def without_some(pieces: RowNumbers, wanted: int, generator: np.random.Generator) -> RowNumbers:
    """The groups' numbers of pieces, less some drawn at random, so that ``wanted`` are left."""
    owner = np.repeat(np.arange(len(pieces)), pieces)
    dropped = generator.permutation(owner)[wanted:]
    left: RowNumbers = pieces - np.bincount(dropped, minlength=len(pieces))
    return left


def dealt_apart(pieces: RowNumbers, batches: int, generator: np.random.Generator) -> RowNumbers:
    """The batch of every piece, group after group; no batch gets two pieces of a group.

    In every round each batch gets one piece, in random order. Only a group whose pieces lie in two rounds could meet a
    batch twice; its pieces of the second round go to batches that it has not met.
    """
    owner = np.repeat(np.arange(len(pieces)), pieces)
    batch = np.empty(len(owner), dtype=np.int64)
    for start in range(0, len(owner), batches):
        turn = generator.permutation(batches)
        if start and owner[start] == owner[start - 1]:
            first, end = np.searchsorted(owner, owner[start]), np.searchsorted(owner, owner[start], side="right")
            is_free = ~np.isin(turn, batch[first:start])
            chosen = np.flatnonzero(is_free)[: end - start]
            turn = np.concatenate([turn[chosen], np.delete(turn, chosen)])
        batch[start : start + batches] = turn
    return batch
