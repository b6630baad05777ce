"""A sentence and its two halves."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from sentemb.types import Examples, TokenColumn, View, ViewContext, Views
from sentemb.views.view import ViewMaker

_ODD = np.uint64(0x9E3779B97F4A7C15)


class Halves(ViewMaker):
    """Every sentence whole as ``anchor``, its first half as ``positive``, its second half as ``part_2``:

        [CLS] a b c d e [SEP]  ->  [CLS] a b c [SEP]  and  [CLS] d e [SEP]

    Tokens are counted without special ones; of an odd number the first half has one more, and a sentence of one token
    is both of its halves. A half has a content hash of its own, from the sentence's and its number. The halves are made
    for the edit ``composed``. Data that hold phrases of their own need ``columns`` instead (anchor, positive,
    positive_2).

    Source: Chanchani & Huang 2023, ACL, "Composition-contrastive learning for sentence embeddings".
    Deviations: the authors split sentences by a discourse parser; the middle token is ours, and may lie inside a word.
    """

    columns = frozenset({"anchor"})

    def makes(self, columns: Collection[str]) -> tuple[str, ...]:
        """Anchor, positive, part_2."""
        return ("anchor", "positive", "part_2")

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """The sentence and its halves."""
        column = examples.columns["anchor"]
        is_special = np.isin(column.flat, np.fromiter(context.vocabulary.special, dtype=np.int32))
        row = np.repeat(np.arange(len(column)), column.lengths)
        before = np.concatenate([[0], np.cumsum(~is_special)])  # ordinary tokens in front of every position
        start = before[column.offsets[:-1]]
        count = before[column.offsets[1:]] - start
        number = before[:-1] - start[row]
        is_first = number < ((count + 1) // 2)[row]
        whole = count < 2
        first = _part(column, is_special | is_first | whole[row], whole, 1)
        second = _part(column, is_special | ~is_first | whole[row], whole, 2)
        columns = {"anchor": column, "positive": first, "part_2": second}
        return {name: View(column=each, ids=examples.ids) for name, each in columns.items()}


def _part(column: TokenColumn, chosen: NDArray[np.bool_], whole: NDArray[np.bool_], number: int) -> TokenColumn:
    """The chosen tokens of every row; rows that are ``whole`` keep their hash."""
    offsets = np.concatenate([[0], np.cumsum(chosen)])[column.offsets]
    mixed = ((3 * column.text.astype(np.uint64) + np.uint64(number)) * _ODD).astype(np.int64) & np.int64(2**63 - 1)
    text = np.where(whole | (column.text < 0), column.text, mixed)
    return TokenColumn(flat=column.flat[chosen], offsets=offsets.astype(np.int64), text=text)
