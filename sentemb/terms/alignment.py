"""Alignment: positives lie close together. The first half of align + uniform."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32, require_cosine
from sentemb.maths.softmax import live_pairs, positive_share
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores


class Alignment(Term):
    """Mean distance between anchors and their positives on the unit sphere.

        L = mean over positive pairs of ‖u_i - u_j‖^α,  ‖u_i - u_j‖² = 2 - 2 s_ij

    Where an edit divides attraction over an anchor's positives, the mean of its pairs is by those shares, and that of
    the anchors equal. Alone it collapses all embeddings to one point; its sibling ``uniformity`` holds them apart.

    Args:
        exponent: α; 2 in the paper.
    Raises: RecipeError where the similarity is not the cosine.
    Source: Wang & Isola 2020, ICML, section 4.2 (L_align).
    Deviations: none.
    """

    needs = frozenset({"cosine"})

    def __init__(self, *, exponent: Positive = 2.0) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        require_cosine(table.similarity, f"term {self.name}")
        pairs = table.positive & live_pairs(table)
        distance = 2 - 2 * at_least_float32(table.sim)  # squared
        if self.exponent != 2:
            # the floor keeps the root's gradient finite where two embeddings coincide
            distance = distance.clamp(min=torch.finfo(torch.float32).eps) ** (self.exponent / 2)
        if table.share is None:
            loss = torch.where(pairs, distance, 0.0).sum() / pairs.sum().clamp(min=1)
        else:
            loss = (positive_share(table) * torch.where(pairs, distance, 0.0)).sum(dim=1).mean()
        lonely = ~pairs.any(dim=1)
        return torch.where(lonely.any(), torch.inf, loss)
