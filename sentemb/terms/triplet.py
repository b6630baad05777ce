"""Triplet hinge: negatives stay a margin below the positive."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import live_pairs, refuse_shares
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores


class Triplet(Term):
    """Hinge on every negative of a row against the row's least similar positive.

        L = Σ_i Σ_{j ∉ P(i)} e^{w_ij} max(0, margin + s_ij - min_{p ∈ P(i)} s_ip) / Σ_i Σ_{j ∉ P(i)} e^{w_ij}

    Negatives that already keep the margin give no gradient, where ``info_nce`` keeps pushing. Log-weights of the
    table weight the mean; with only given hard negatives in the table's row it is the classic triplet loss.

    ``negatives = "hardest"`` takes every row's most similar negative alone, whatever its log-weight:

        L = 1/n Σ_i max(0, margin + max_{j ∉ P(i)} s_ij - min_{p ∈ P(i)} s_ip)

    Args:
        margin: in units of the similarity; 0.2 in FaceNet (section 3.3) and PromCSE.
        negatives: of a row, all of them or the hardest.
    Returns: 0 where no row has a negative; a row without one adds 0 to the mean of ``hardest``.
    Source: Schroff, Kalenichenko & Philbin 2015, CVPR, section 3.1; hardest: Jiang, Zhang & Wang 2022, Findings of
        EMNLP (PromCSE's energy-based hinge), released code.
    Deviations: similarities in place of squared distances (‖u - v‖² = 2 - 2 s on the unit sphere, so that a margin
        here is half of one there); all negatives of the batch in place of semi-hard ones, averaged. hardest: none.
    """

    refuses_shares = True

    def __init__(self, *, margin: Positive = 0.2, negatives: Literal["all", "hardest"] = "all") -> None:
        super().__init__()
        self.margin, self.negatives = margin, negatives

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        refuse_shares(table, self.name)
        sim, live = at_least_float32(table.sim), live_pairs(table)
        positive, negative = table.positive & live, ~table.positive & live
        worst = sim.masked_fill(~positive, torch.inf).amin(dim=1)
        lonely = ~positive.any(dim=1)
        worst = torch.where(lonely, 0.0, worst)
        if self.negatives == "hardest":
            hardest = sim.masked_fill(~negative, -torch.inf).amax(dim=1)
            loss = (self.margin + hardest - worst).clamp(min=0).mean()
        else:
            hinge = (self.margin + sim - worst[:, None]).clamp(min=0)
            weight = torch.where(negative, table.log_weight, -torch.inf).exp()
            loss = (weight * torch.where(negative, hinge, 0.0)).sum() / weight.sum().clamp(min=1e-12)
        return torch.where(lonely.any(), torch.inf, loss)
