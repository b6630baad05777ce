"""Hard negatives drawn from every example's neighbours in the data."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import RecipeError
from sentemb.parts import Count
from sentemb.types import View, ViewContext, Views
from sentemb.views.view import ViewCopy


@runtime_checkable
class NeighbourSource(Protocol):
    """What this view needs of the companion ``neighbours``."""

    column: str

    def window(self, text: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]: ...


class MinedViews(ViewCopy):
    """Views ``mined_1`` … ``mined_k``: k different neighbours of every example's text, drawn anew each step.

        mined_1, …, mined_k ~ N(x_i) without replacement

    The text is that of the companion's column (the anchor, or the positive of pairs); the edit ``mined`` turns the
    views into negatives. An example whose text the companion does not know, and one with fewer than k neighbours,
    fills up with repetitions of what it has, or with random examples.

    Args:
        count: k, mined negatives of every example; each is one more text to encode.
        companion: name of the companion that knows the neighbours.
    Returns: the mined views only; their ids are those of the examples the texts come from.
    Raises: RecipeError without the companion.
    Source: Xiong et al. 2021, ICLR, section 3 (uniform over the top neighbours).
    Deviations: none.
    """

    def __init__(self, *, count: Count = 1, companion: str = "neighbours") -> None:
        self.count, self.companion = count, companion
        self.needs = frozenset({f"companion:{companion}"})
        self.makes = tuple(f"mined_{i + 1}" for i in range(count))

    def __call__(self, views: Views, context: ViewContext) -> Views:
        """``mined_1`` … ``mined_k``."""
        source: object = context.companions.get(self.companion)
        if not isinstance(source, NeighbourSource):
            raise RecipeError(f'views.copies: mined needs a companion "{self.companion}" of use = "neighbours"')
        window, is_known = source.window(views[source.column].column.text)
        n, width = window.shape
        # a random order of each row's neighbours; the first k are the draw
        order = np.argsort(context.generator.random((n, width)), axis=1)[:, np.arange(self.count) % width]
        row = np.take_along_axis(window, order, axis=1)
        anywhere = context.generator.integers(len(context.dataset), size=row.shape)
        row = np.where(is_known[:, None], row, anywhere)
        column, ids = context.dataset.columns[source.column], context.dataset.ids
        return {name: View(column=column.take(row[:, i]), ids=ids[row[:, i]]) for i, name in enumerate(self.makes)}
