"""Squared error between cosines and graded scores."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.terms.cosent import graded_scores
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores


class CosineError(Term):
    """Fit the similarity of every pair to its score.

        L = 1/n Σ_i ( s_ii - (y_i - lowest) / (highest - lowest) )²

    Differs from ``cosent`` in fitting the scores' values, not their order.

    Args:
        lowest: the score that means similarity 0.
        highest: the score that means similarity 1; 5 for STS-B.
    Raises: PartError where lowest is not below highest.
    Source: Reimers & Gurevych 2019, EMNLP, section 3 (regression objective function).
    Deviations: none.
    """

    needs = frozenset({"scores"})

    def __init__(self, *, lowest: float = 0.0, highest: float = 1.0) -> None:
        super().__init__()
        if not lowest < highest:
            raise ValueError(f"lowest = {lowest}, highest = {highest}; allowed: lowest below highest")
        self.lowest, self.highest = lowest, highest

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        own = at_least_float32(table.sim).diagonal()
        target = (graded_scores("cosine_error", batch) - self.lowest) / (self.highest - self.lowest)
        return (own - target).square().mean()
