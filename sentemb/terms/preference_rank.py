"""A pair must win against all pairs of lower score, by how much lower they are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import masked_logsumexp, mean_over
from sentemb.parts import Positive
from sentemb.terms.cosent import graded_scores
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature

_EQUAL = 1e-8  # scores that differ by less tie


class PreferenceRank(Term):
    """Cross-entropy of every pair against the pairs of lower score, whose logits grow with the difference of scores.

        T_k = {j: y_k - y_j > 1e-8},   w_kj = y_k - y_j
        ℓ_k = max_{j ∈ T_k} w_kj · s_kk / τ,   ℓ_kj = w_kj · s_jj / τ
        L = -mean_{k: T_k not empty} log( exp ℓ_k / (exp ℓ_k + Σ_{j ∈ T_k} exp ℓ_kj) )

    s_ii is the similarity of anchor i and its own positive, y_i their score over ``highest``. ``cosent`` weighs all
    inversions alike; here one across the whole scale counts most.

    Args:
        temperature: τ; 0.05 in the released code.
        highest: the highest score there can be, 5 for STS-B; the logits grow with the scale of y.
    Returns: 0, with no gradient, where all scores of the batch are equal.
    Source: CoDiEmb, released code (TencentCloudADP/youtu-embedding), with the weight 0.5.
    Deviations: scores can be divided by their highest. That winner and losers of one softmax have factors of their
        own is the code's, and kept.
    """

    needs = frozenset({"scores"})

    def __init__(self, *, temperature: Temperature = 0.05, highest: Positive = 1.0) -> None:
        super().__init__()
        self.temperature, self.highest = temperature, highest

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        own = at_least_float32(table.sim).diagonal() / self.temperature
        score = graded_scores(self.name, batch).to(own) / self.highest
        lead = score[:, None] - score[None, :]
        is_lower = lead > _EQUAL
        winner = lead.amax(dim=1) * own
        losers = masked_logsumexp(lead * own[None, :], is_lower, empty=0.0)
        return mean_over(torch.logaddexp(winner, losers) - winner, is_lower.any(dim=1))
