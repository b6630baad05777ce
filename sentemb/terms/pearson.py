"""Correlation of similarities and graded scores."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.terms.cosent import graded_scores
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores

_CONSTANT = 1e-6  # a spread below is rounding


class Pearson(Term):
    """One minus Pearson's correlation of the pairs' similarities and their scores, over the batch.

        L = 1 - Σ_i (s_ii - s̄) (y_i - ȳ) / ( √Σ_i (s_ii - s̄)² · √Σ_i (y_i - ȳ)² )

    s_ii is the similarity of anchor i and its own positive, y_i their graded score. Neither the level nor the spread of
    the similarities matters, where ``cosine_error`` fits both; ``cosent`` and ``rank_kl`` read the scores' order.

    Returns: 0 where all scores of the batch are equal; 1, with no gradient, where all similarities are.
    Source: CoDiEmb, released code (TencentCloudADP/youtu-embedding).
    Deviations: none.
    """

    needs = frozenset({"scores"})

    def __init__(self) -> None:
        super().__init__()

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        own = at_least_float32(table.sim).diagonal()
        score = graded_scores(self.name, batch).to(own)
        differs = score.amax() > score.amin()  # not by the centred ones: the mean of equal scores may round
        own, score = own - own.mean(), score - score.mean()
        is_spread = (own.abs().amax() > _CONSTANT) & differs
        # equal similarities have no direction: the root's gradient there would be infinite
        norms = torch.where(is_spread, own.square().sum(), 1.0).sqrt() * score.norm().clamp(min=_CONSTANT)
        correlation = torch.where(is_spread, (own * score).sum() / norms, 0.0)
        return torch.where(differs, 1 - correlation, 0.0 * correlation)
