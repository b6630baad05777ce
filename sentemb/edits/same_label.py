"""Candidates of the anchor's class are positives."""

from __future__ import annotations

from sentemb.edits.edit import Edit
from sentemb.maths.table import mark_same_label
from sentemb.types import Batch, PairScores


class SameLabel(Edit):
    """Mark every candidate of the anchor's class as a positive:

        positive[i, j] = positive[i, j]  or  label_i = label_j ≠ -1

    Candidates of unknown class (-1: queue, given and synthetic negatives) stay what they are. A removed pair stays
    removed. Meant for ``supervised_contrast``; for graded labels see the terms that read scores.

    Returns:
        The table with more positives.
    Raises:
        RecipeError: the rows have no labels.
    Source: Khosla et al. 2020, NeurIPS, "Supervised contrastive learning", equation 2 (the set P(i)).
    Deviations: the anchor's own view is not a candidate of the table; its positive is.
    """

    needs = frozenset({"labels"})

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        return mark_same_label(table)
