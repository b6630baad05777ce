"""Candidates of the anchor's class are positives."""

from __future__ import annotations

from sentemb.errors import RecipeError
from sentemb.maths.rows import UNKNOWN
from sentemb.types import Batch, Edit, PairScores


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
        anchor, candidate = table.anchor.label, table.candidate.label
        if anchor is None or candidate is None:
            raise RecipeError("edit same_label: the data have no label column; add one, or drop the edit")
        same = (anchor[:, None] == candidate[None, :]) & (anchor != UNKNOWN)[:, None]
        return table.with_(positive=table.positive | same)
