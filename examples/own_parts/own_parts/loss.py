"""Additive margin softmax: the positive must win by a margin."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from sentemb import Term
from sentemb.maths.softmax import live_pairs, masked_logsumexp, table_logits
from sentemb.parts import NonNegative, Positive
from sentemb.types import Batch, PairScores


class AdditiveMargin(Term):
    """InfoNCE in both directions, with a margin taken off every positive's similarity.

        ℓ_ij = (s_ij - margin · 1[j ∈ P(i)]) / τ + w_ij
        L = -1/2n Σ_i [ log Σ_{p ∈ P(i)} exp ℓ_ip / Σ_j exp ℓ_ij  +  the same of ℓ's square, transposed ]

    With ``margin = 0`` it is ``info_nce`` with ``directions = "both"``.

    Args:
        margin: in units of the similarity; 0.3 in LaBSE.
        temperature: τ.

    Source: Yang et al. 2019, IJCAI, "Improving multilingual sentence embedding using bi-directional dual encoder with
        additive margin softmax"; Feng et al. 2022, ACL, "LaBSE", section 2.
    Deviations: a temperature, and the mean of both directions in place of their sum.
    """

    def __init__(self, *, margin: NonNegative = 0.3, temperature: Positive = 0.05) -> None:
        super().__init__()
        self.margin, self.temperature = margin, temperature

    def forward(self, table: PairScores, batch: Batch) -> Tensor:
        """The loss of the whole batch."""
        logits = table_logits(replace(table, sim=table.sim - self.margin * table.positive), self.temperature)
        positive = table.positive & live_pairs(table)
        n = len(table.anchor)
        return (_cross_entropy(logits, positive) + _cross_entropy(logits[:, :n].T, positive[:, :n].T)) / 2


def _cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    return (logits.logsumexp(dim=1) - masked_logsumexp(logits, positive)).mean()
