"""Contrastive loss of the hard pairs of a batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.softmax import mean_over
from sentemb.terms.contrastive import Contrastive, own_distances
from sentemb.terms.cosent import graded_scores
from sentemb.types import Batch, PairScores


class OnlineContrastive(Contrastive):
    """``contrastive`` over the pairs that stand on the wrong side of a pair of the other kind.

        d_i = 1 - s_ii
        H₁ = {i: y_i = 1, d_i > min_{y_j = 0} d_j},   H₀ = {i: y_i = 0, d_i < max_{y_j = 1} d_j}
        L = 1/n ( Σ_{i ∈ H₁} d_i² + Σ_{i ∈ H₀} max(0, margin - d_i)² )

    s_ii is the similarity of anchor i and its own candidate, y_i their score: 1 (they belong together) or 0. In a batch
    of one kind, the bound is the mean of its own distances.

    Args:
        margin: distance beyond which a pair of score 0 is left alone; 0.5 in sentence-transformers.
    Returns: 0, with no gradient, where every pair of score 1 is nearer than every pair of score 0.
    Raises: DataError where a score is neither 0 nor 1, before training.
    Source: sentence-transformers' ``OnlineContrastiveLoss``.
    Deviations: divided by n, so that the loss does not grow with the batch; the library sums.
    """

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        distance, together = own_distances(table), graded_scores(self.name, batch) == 1
        fixed = distance.detach()
        nearest_apart = fixed.masked_fill(together, torch.inf).amin()
        farthest_together = fixed.masked_fill(~together, -torch.inf).amax()
        is_far = together & (fixed > torch.where(together.all(), mean_over(fixed, together), nearest_apart))
        is_near = ~together & (fixed < torch.where(together.any(), farthest_together, mean_over(fixed, ~together)))
        loss = is_far * distance.square() + is_near * (self.margin - distance).clamp(min=0).square()
        return loss.mean()
