"""The same words in another order."""

from __future__ import annotations

import numpy as np

from sentemb.types import UNKNOWN, TokenColumn, View, ViewContext, Views
from sentemb.views.edited import Words
from sentemb.views.view import ViewCopy


class ShuffledWords(ViewCopy):
    """A copy of a view whose tokens stand in random order, special ones where they were, drawn anew each step.

    Under a name such as ``negative_1`` it is encoded, and the edit ``given`` makes it a hard negative: a text of the
    same words that means something else. It has no example id and no content hash, unless the order did not change.

    Args:
        of: the view that is copied.
        to: name of the copy.
    Returns: the copy only.
    Source: after Kim & Lee 2024, "CLAN: a contrastive learning based novelty detection framework", whose negatives are
        augmentations that change what a sample is.
    Deviations: CLAN's loss, which pulls all texts together, is not here.
    """

    def __init__(self, *, of: str = "anchor", to: str = "negative_1") -> None:
        self.of, self.to = of, to
        self.needs = frozenset({f"view:{of}"})
        self.makes = (to,)

    def __call__(self, views: Views, context: ViewContext) -> Views:
        """The copy."""
        column = views[self.of].column
        words = Words.of(column, np.fromiter(context.vocabulary.special, dtype=np.int32))
        order = np.lexsort((context.generator.random(len(words.row)), words.row))  # rows stay in their order
        flat = column.flat.copy()
        flat[words.position] = column.flat[words.position[order]]
        is_changed = np.zeros(len(column), dtype=bool)
        is_changed[words.row[flat[words.position] != column.flat[words.position]]] = True
        ids, text = (np.where(is_changed, UNKNOWN, known) for known in (views[self.of].ids, column.text))
        return {self.to: View(column=TokenColumn(flat=flat, offsets=column.offsets, text=text), ids=ids)}
