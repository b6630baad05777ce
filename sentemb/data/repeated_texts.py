"""Which rows share a text, and how to keep them in different batches; vectorised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentemb.types import Examples

RowNumbers = NDArray[np.int64]

# Random swaps settle usual data in five rounds. Where many rows share texts they make as many conflicts as they
# settle, and only swaps that are checked beforehand help.
_BLIND_ROUNDS = 8
_CAREFUL_ROUNDS = 60
_TRIALS = 16


class RepeatedTexts:
    """The texts that occur in two or more rows of a data set, in whichever columns; ``most``: in how many at most."""

    def __init__(self, examples: Examples) -> None:
        texts = np.stack([column.text for column in examples.columns.values()], axis=1)
        rows, columns = texts.shape
        _, key = np.unique(texts, return_inverse=True)
        # a row whose own columns are equal holds that text once
        key = np.sort(key.reshape(rows, columns), axis=1)
        first = np.ones_like(key, dtype=bool)
        first[:, 1:] = key[:, 1:] != key[:, :-1]
        frequency = np.bincount(key[first])
        self.most = int(frequency.max(initial=0))
        shared = first & (frequency[key] > 1)
        number = np.cumsum(frequency > 1) - 1  # repeated texts, renumbered from 0
        # entries of row i: _key[_start[i]:_start[i + 1]]
        self._key: RowNumbers = number[key[shared]]
        self._start = np.concatenate([[0], np.cumsum(shared.sum(axis=1))])
        self._frequency = frequency[frequency > 1]
        # a row's most frequent text decides where it is dealt
        weight = np.where(shared, frequency[key], 0)
        heaviest = weight.argmax(axis=1)
        self._group = np.where(weight.any(axis=1), number[key[np.arange(rows), heaviest]], -1)

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
