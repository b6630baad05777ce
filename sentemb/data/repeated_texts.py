"""Which rows share a text, and how to keep them in different batches; vectorised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.types import Examples

RowNumbers = NDArray[np.int64]

# Random swaps settle usual data in five rounds. Where many rows share texts they make as many conflicts as they
# settle, and only swaps that are checked beforehand help.
_BLIND_ROUNDS = 8
_CAREFUL_ROUNDS = 60
_TRIALS = 16
_BLOCK = 2**18  # rows that are looked at together: memory grows with the repeated texts, not with all


def _repeated(columns: Sequence[RowNumbers]) -> RowNumbers:
    """The hashes that stand in the columns more than once, ascending."""
    hashes = np.concatenate(columns)
    hashes.sort()
    again = hashes[1:][hashes[1:] == hashes[:-1]]
    several: RowNumbers = again[np.diff(again, prepend=-1) != 0]
    return several


def _key_blocks(
    columns: Sequence[RowNumbers], repeated: RowNumbers
) -> Iterator[tuple[slice, RowNumbers, NDArray[np.bool_]]]:
    """Blocks of rows with their texts as sorted indices into ``repeated`` (rows, columns), and which of these count.

    -1 is a text that stands nowhere else, which does not count; nor does a text that the row holds already.
    """
    for start in range(0, len(columns[0]), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(columns[0])))
        text = np.stack([column[rows] for column in columns], axis=1)
        keys = np.searchsorted(repeated, text)
        keys[np.take(repeated, keys, mode="clip") != text if len(repeated) else np.ones_like(keys, bool)] = -1
        keys.sort(axis=1)
        is_first = keys >= 0
        is_first[:, 1:] &= keys[:, 1:] != keys[:, :-1]
        yield rows, keys, is_first


class RepeatedTexts:
    """The texts that occur in two or more rows of a data set, in whichever columns; ``most``: in how many at most."""

    def __init__(self, examples: Examples) -> None:
        columns = [column.text for column in examples.columns.values()]
        repeated = _repeated(columns)
        # a row whose own columns are equal holds that text once, so a text may prove to be in one row only
        frequency = np.zeros(len(repeated), dtype=np.int64)
        for _, keys, is_first in _key_blocks(columns, repeated):
            frequency += np.bincount(keys[is_first], minlength=len(repeated))
        self.most = int(frequency.max(initial=min(len(examples), 1)))
        number = np.cumsum(frequency > 1) - 1  # texts of several rows, renumbered from 0
        counts, group = np.zeros(len(examples), dtype=np.int32), np.full(len(examples), -1, dtype=np.int32)
        entries = [np.zeros(0, dtype=np.int32)]
        for rows, keys, is_first in _key_blocks(columns, repeated):
            is_shared = is_first.copy()
            is_shared[is_first] = frequency[keys[is_first]] > 1
            entries.append(number[keys[is_shared]].astype(np.int32))
            counts[rows] = is_shared.sum(axis=1)
            # a row's most frequent text decides where it is dealt
            weight = np.zeros(keys.shape, dtype=np.int64)
            weight[is_shared] = frequency[keys[is_shared]]
            heaviest = keys[np.arange(len(keys)), weight.argmax(axis=1)]
            group[rows] = np.where(is_shared.any(axis=1), number[heaviest], -1) if len(number) else -1
        # entries of row i: _key[_start[i]:_start[i + 1]]
        self._key = np.concatenate(entries)
        self._start = np.zeros(len(examples) + 1, dtype=np.int64)
        np.cumsum(counts, out=self._start[1:])
        self._frequency: RowNumbers = frequency[frequency > 1]
        self._group = group

    def deal(self, rows: RowNumbers, sizes: RowNumbers, generator: np.random.Generator) -> RowNumbers:
        """Deal rows to batches like cards, one batch after the other, rows of one text in succession.

        Any run of as many rows as there are batches lands in different ones, so a text's rows do too.

        Returns: the rows, batch after batch.
        """
        group = self._group[rows]
        grouped = group >= 0
        rank = generator.permutation(len(self._frequency))
        # the most frequent first: they need the rounds in which every batch takes a row
        weight = (self.most - self._frequency) * len(rank) + rank
        dealt = np.concatenate([rows[grouped][np.argsort(weight[group[grouped]], kind="stable")], rows[~grouped]])
        turn = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        batches = np.empty_like(dealt)
        batches[np.argsort(turn, kind="stable")] = dealt
        return batches

    def repair(
        self, batches: RowNumbers, batch_of: RowNumbers, generator: np.random.Generator, *, first: RowNumbers,
        end: RowNumbers,
    ) -> NDArray[np.bool_]:
        """Swap rows that share a text with another row of their batch for rows at other positions.

        Changes ``batches`` in place. ``batch_of`` is the batch of every position; the partners of position p are those
        from ``first[p]`` on, before ``end[p]``.

        Returns: the positions of rows that still conflict, (rows,); the caller leaves them out.
        """
        total = len(batches)
        bad = self._conflicts(batches, batch_of, np.arange(total))
        for turn in range(_BLIND_ROUNDS + _CAREFUL_ROUNDS):
            if not len(bad):
                break
            is_blind = turn < _BLIND_ROUNDS
            size = len(bad), 1 if is_blind else _TRIALS
            partners = generator.integers(first[bad, None], end[bad, None], size=size)
            here, there = (bad, partners[:, 0]) if is_blind else self._fitting(batches, batch_of, bad, partners)
            there, index = np.unique(there, return_index=True)
            free = ~np.isin(there, bad)
            here, there = here[index[free]], there[free]
            batches[here], batches[there] = batches[there], batches[here]
            touched = np.zeros(int(batch_of.max()) + 1, dtype=bool)
            touched[batch_of[bad]] = touched[batch_of[there]] = True
            bad = self._conflicts(batches, batch_of, np.flatnonzero(touched[batch_of]))
        left_out = np.zeros(total, dtype=bool)
        left_out[bad] = True
        return left_out

    def _fitting(
        self, batches: RowNumbers, batch_of: RowNumbers, bad: RowNumbers, partners: RowNumbers
    ) -> tuple[RowNumbers, RowNumbers]:
        """The bad positions with a partner such that neither row meets its texts in its new batch, and that partner."""
        entry, owner = self._entries(batches)
        present = np.unique(batch_of[owner] * len(self._frequency) + self._key[entry])  # (batch, text) as one number

        def fits(positions: RowNumbers, batch: RowNumbers) -> NDArray[np.bool_]:
            entry, owner = self._entries(batches[positions.ravel()])
            code = batch.ravel()[owner] * len(self._frequency) + self._key[entry]
            index = np.searchsorted(present, code)
            meets = present[np.minimum(index, len(present) - 1)] == code
            meetings: RowNumbers = np.bincount(owner[meets], minlength=positions.size)
            none: NDArray[np.bool_] = meetings.reshape(positions.shape) == 0
            return none

        here = np.broadcast_to(bad[:, None], partners.shape)
        possible = fits(here, batch_of[partners]) & fits(partners, batch_of[here])
        has_partner = possible.any(axis=1)
        choice = possible.argmax(axis=1)
        return bad[has_partner], partners[has_partner, choice[has_partner]]

    def _entries(self, rows: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
        """Indices into ``_key`` of all the rows' repeated texts, and for each its position in ``rows``."""
        counts = self._start[rows + 1] - self._start[rows]
        ends = np.cumsum(counts)
        entry = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self._start[rows] - (ends - counts), counts)
        return entry, np.repeat(np.arange(len(rows)), counts)

    def _conflicts(self, batches: RowNumbers, batch_of: RowNumbers, positions: RowNumbers) -> RowNumbers:
        """Of ``positions`` (whole batches), those whose row holds a text that an earlier row of the batch holds."""
        entry, owner = self._entries(batches[positions])
        position = positions[owner]
        code = batch_of[position] * len(self._frequency) + self._key[entry]
        order = np.argsort(code, kind="stable")
        again = code[order[1:]] == code[order[:-1]]
        return np.unique(position[order[1:][again]])
