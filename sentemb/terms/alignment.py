"""Alignment: positives lie close together. The first half of align + uniform."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import live_pairs
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores


class Alignment(Term):
    """Mean distance between anchors and their positives on the unit sphere.

        L = mean over positive pairs of ‖u_i - u_j‖^α,  ‖u_i - u_j‖² = 2 - 2 s_ij

    Alone it collapses all embeddings to one point; its sibling ``uniformity`` holds them apart.

    Args:
        exponent: α; 2 in the paper.
    Raises: RecipeError where the similarity is not the cosine.
    Source: Wang & Isola 2020, ICML, section 4.2 (L_align).
    Deviations: none.
    """

    def __init__(self, *, exponent: Positive = 2.0) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        if table.similarity != "cosine":
            raise RecipeError(f'terms: alignment measures on the unit sphere; similarity = "{table.similarity}", '
                              'allowed: cosine')
        pairs = table.positive & live_pairs(table)
        distance = 2 - 2 * at_least_float32(table.sim)  # squared
        if self.exponent != 2:
            # the floor keeps the root's gradient finite where two embeddings coincide
            distance = distance.clamp(min=torch.finfo(torch.float32).eps) ** (self.exponent / 2)
        total = torch.where(pairs, distance, torch.zeros_like(distance)).sum()
        lonely = ~pairs.any(dim=1)
        return torch.where(lonely.any(), torch.inf, total / pairs.sum().clamp(min=1))
