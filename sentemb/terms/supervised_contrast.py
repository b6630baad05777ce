"""Supervised contrast: every positive of an anchor must be found, not only the easiest."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.maths.softmax import (
    live_pairs,
    log_remainder,
    masked_logsumexp,
    mean_over_positives,
    table_logits,
    weighted_mean,
)
from sentemb.terms.info_nce import row_weights
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class SupervisedContrast(Term):
    """Cross-entropy of an anchor's row against the distribution over its positives (L_out).

        ℓ_ij = s_ij / τ_i + w_ij,   p_ij = exp ℓ_ij / Σ_k exp ℓ_ik
        L = -1/n Σ_i Σ_{p ∈ P(i)} share_ip (1 - p_ip)^focus log p_ip

    P(i) is what the table says: classes set it through the edit ``same_label``. The shares are 1/|P(i)|, unless an
    edit divides attraction otherwise (``attraction``, ``mixed``). With one positive and focus 0 it equals
    ``info_nce``; with several, ``info_nce`` sums them inside the logarithm (L_in), and this term outside.

    Args:
        temperature: τ; 0.05 as in SimCSE; 0.1 in the paper, for images.
        focus: exponent of the weight of every positive, which carries no gradient. 1 counts positives that are still
            to be found more (Core-tuning); -1 undoes InfoNCE's fading, so that one positive has the gradient of
            ``decoupled`` (FlatNCE, MACL); 0 weighs all alike.
        row_weight: ``weight`` takes the mean over anchors weighted by the column ``weight`` in the place of 1/n Σ.
    Returns: 0 for one example with no other candidate.
    Source: Khosla et al. 2020, NeurIPS, eq. 2 (L_out); focus: Zhang et al. 2021, NeurIPS, "Unleashing the power of
        contrastive self-supervised visual models via contrast-regularized fine-tuning" (Core-tuning).
    Deviations: anchors are the anchor view and candidates the others, n × m; the paper contrasts all 2n views with
        each other except themselves. Core-tuning's released code lets gradients through the weight.
    """

    def __init__(
        self, *, temperature: Temperature = 0.05, focus: float = 0.0, row_weight: Literal["weight"] | None = None
    ) -> None:
        super().__init__()
        self.temperature, self.focus, self.row_weight = temperature, focus, row_weight
        self.needs = frozenset({"weights"} if row_weight else ())

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        logits, live = table_logits(table, self.temperature), live_pairs(table)
        if self.focus:
            losses = -mean_over_positives(-self._focused(logits, live), table)
        else:
            losses = masked_logsumexp(logits, live, empty=0.0) - mean_over_positives(logits, table)
        return weighted_mean(losses, row_weights(self.name, batch)) if self.row_weight else losses.mean()

    def _focused(self, logits: Float[Tensor, "n m"], live: Bool[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """``-(1 - p_ij)^focus log p_ij`` with the power as a constant; 0 where a row has one live pair.

        Value and slope are made in logarithms: 1 - p may be e^-95, so that its power overflows, and p rounds to 1.
        """
        normaliser = masked_logsumexp(logits, live, empty=0.0)[:, None]
        odds = log_remainder(logits, live) + normaliser - logits.masked_fill(~live, 0.0)  # log((1 - p) / p)
        has_others = live.sum(dim=1, keepdim=True) > 1
        odds = odds.masked_fill(~(live & has_others), 0.0)
        with torch.no_grad():
            rest = F.logsigmoid(odds)  # log(1 - p)
            loss = torch.where(odds < -30, odds, F.softplus(odds).log())  # log(-log p), which is log(1 - p) there
            value, slope = (self.focus * rest + loss).exp(), ((self.focus + 1) * rest).exp()
        focused = value + slope * (odds - odds.detach())
        return torch.where(has_others, focused, 0.0)
