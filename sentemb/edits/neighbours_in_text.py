"""The sentences before and after a sentence are its positives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sentemb.data.orders import NoDuplicates, Shuffled
from sentemb.edits.edit import Edit
from sentemb.maths.softmax import live_pairs
from sentemb.parts import Count
from sentemb.types import UNKNOWN, Batch, PairScores


class NeighboursInText(Edit):
    """Make the sentences that stand near the anchor in its text its positives, and leave out the sentence itself:

        positive[i, j]    =  0 < |id_i - id_j| ≤ window   and   label_i = label_j ≠ -1, where there are labels
        log_weight[i, i]  =  -inf

    over the n in-batch candidates. The data have one sentence a row, in the order of their texts; the label, where
    there is one, names the document. An anchor without a neighbour in the batch keeps its own positive. So batches must
    hold neighbours: ``train.batches = "contiguous"``. With ``supervised_contrast`` it is Quick-Thoughts.

    Args:
        window: how far neighbours may be apart; 1 in the released code.
    Returns:
        The table with other positives; removed pairs stay removed.
    Source: Logeswaran & Lee 2018, ICLR, "An efficient framework for learning sentence representations"
        (Quick-Thoughts), released code.
    Deviations: the released code sets the similarity of a sentence with itself to 0, where it stays a candidate; here
        it is none. The code knows no documents. It trains two encoders; here one makes anchors and candidates.
    """

    def __init__(self, *, window: Count = 1) -> None:
        super().__init__()
        self.window = window

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Batches of rows at random, which hold no neighbours."""
        train = recipe.get("train")
        if train is None or not isinstance(train.batches, (NoDuplicates, Shuffled)):
            return []
        return ['finds no neighbours in batches of rows at random; set train.batches = "contiguous"']

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        n = len(table.anchor)
        distance = (table.anchor.ids[:, None] - table.candidate.ids[None, :n]).abs()
        is_near = (distance > 0) & (distance <= self.window) & live_pairs(table)[:, :n]
        if table.anchor.label is not None and table.candidate.label is not None:
            label = table.anchor.label[:, None]
            is_near &= (label == table.candidate.label[None, :n]) & (label != UNKNOWN)
        has_neighbour = is_near.any(dim=1)
        positive, log_weight = table.positive.clone(), table.log_weight.clone()
        positive[:, :n] = is_near | (table.positive[:, :n] & ~has_neighbour[:, None])
        log_weight.diagonal()[has_neighbour] = -float("inf")
        return replace(table, positive=positive, log_weight=log_weight)
