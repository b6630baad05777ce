"""Negatives mined from the data while training."""

from __future__ import annotations

import re

import torch
from jaxtyping import Bool
from torch import Tensor

from sentemb.companions.companion import find_companion
from sentemb.companions.neighbours import Neighbours
from sentemb.edits.edit import Edit
from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates, extra_rows
from sentemb.types import Batch, Cosine, PairScores, Rows

_MINED = re.compile(r"mined_(\d+)")


class Mined(Edit):
    """Append the views ``mined_1``, … as negatives that all anchors see, without those that are too near:

        log_weight[i, j] = -inf   if cos(r(x_i), r(y_j)) > threshold, or y_j is x_i itself
                           0      otherwise

    with r the frozen encoder of the companion ``neighbours`` and x_i the text that the companion looks at: the anchor,
    or the positive of pairs. Against ``given``, the data need no negative column; the text of a mined negative can be
    another example of the batch, so the check is made for every anchor, not only for the one it was mined for.

    Args:
        threshold: largest cosine (centred) of a negative; without it only equal texts are dropped.
        companion: name of the companion that knows the neighbours.
    Returns:
        The table with n more columns a view.
    Raises:
        RecipeError: there is no view ``mined_1``.
    Source: Xiong et al. 2021, ICLR, "Approximate nearest neighbor negative contrastive learning" (ANCE);
        threshold: Moreira et al. 2024, arXiv:2407.15831, "NV-Retriever", section 4 (absolute cut, TopK-Abs).
    Deviations: the cut is by the frozen encoder's centred cosine.
    """

    def __init__(self, *, threshold: Cosine | None = None, companion: str = "neighbours") -> None:
        super().__init__()
        self.threshold, self.companion = threshold, companion
        self.needs = frozenset({f"companion:{companion}", "view:mined_1"})

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        companion = find_companion(batch.companions, self.companion, Neighbours, self.name)
        names = sorted(
            (name for name in batch.views if _MINED.fullmatch(name)), key=lambda name: int(name.removeprefix("mined_"))
        )
        if not names:
            raise RecipeError('edit mined: there is no view mined_1; add { use = "mined" } to views.copies')
        own = batch.views[companion.column]
        for name in names:
            view = batch.views[name]
            rows = extra_rows(view.embedding, table.candidate, ids=self._ids(view, own), text=view.text)
            gone = self._too_near(companion, own.text, view.text)
            weight = torch.zeros(gone.shape, device=gone.device).masked_fill(gone, float("-inf"))
            table = add_candidates(table, rows, log_weight=weight)
        return table

    @staticmethod
    def _ids(view: Rows, own: Rows) -> Tensor:
        """The view's ids where they name another example; a mined text is never its own example."""
        return torch.where(view.ids == own.ids, torch.full_like(view.ids, -1), view.ids)

    def _too_near(self, companion: Neighbours, text: Tensor, mined: Tensor) -> Bool[Tensor, "n m"]:
        gone = text[:, None] == mined[None, :]
        if self.threshold is not None:
            sim, is_known = companion.similarity(text, mined)
            gone = gone | (is_known & (sim > self.threshold))
        return gone
