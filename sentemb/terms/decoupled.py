"""Decoupled contrast: the positive does not stand in its own denominator."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.companions.companion import find_companion
from sentemb.companions.per_example import PerExample
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import (
    live_pairs,
    masked_logsumexp,
    mean_over,
    mean_over_positives,
    row_temperature,
    table_logits,
)
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class Decoupled(Term):
    """InfoNCE without the positive in the denominator (DCL).

        ℓ_ij = s_ij / τ_i + w_ij
        L = 1/n Σ_i ( -v_i ℓ_ip + log Σ_{j ∉ P(i)} exp ℓ_ij )
        v_i = 1, or with ``sigma``  2 - n softmax_i(s_ip / σ)
        with ``memory``, Σ_{j ∉ P(i)} exp ℓ_ij is  |N(i)| u_i exp ℓ_ip,  u_i of the companion ``per_example``

    In ``info_nce`` the gradient of a row fades as its positive is found, all the faster in a small batch; here it
    does not. The loss can be negative. Several positives are averaged, by their shares where an edit divides
    attraction. The row temperatures τ_i are τ unless the edit ``temperature`` moves them.

    Args:
        temperature: τ; 0.1 for ImageNet in the paper.
        sigma: σ of the weighted form, in which found positives attract less; 0.5 in the paper. The weights v have the
            mean 1 and carry no gradient.
        units: what a row's loss is counted in. ``similarity`` multiplies it by τ_i, so that rows of unequal
            temperature pull alike (SogCLR).
        memory: weigh negatives against what is remembered of the anchor's: u_i averages exp(ℓ_ij - ℓ_ip) over earlier
            visits too. The gradient of the second part is Σ_N exp(ℓ_ij - ℓ_ip) / (|N| u_i) ∇ℓ_ij.
        companion: name of the companion that remembers.
    Returns: anchors without a negative left are not counted (there is nothing to be pushed from);
        if all are, as for one example alone, the loss is 0.
    Source: Yeh et al. 2022, ECCV, "Decoupled contrastive learning" (L_DC, L_DCW); units, memory: Yuan et al. 2022,
        ICML, "Provable stochastic optimization for global contrastive learning" (SogCLR).
    Deviations: negatives are those of the table; the paper's are the 2(n-1) views of other examples. With ``memory``,
        log-weights of the table weigh the mean in u.
    """

    def __init__(
        self, *, temperature: Temperature = 0.1, sigma: Positive | None = None,
        units: Literal["logits", "similarity"] = "logits", memory: bool = False, companion: str = "per_example",
    ) -> None:
        super().__init__()
        self.temperature, self.sigma, self.units = temperature, sigma, units
        self.memory, self.companion = memory, companion
        if memory:
            self.needs = frozenset({f"companion:{companion}"})

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        logits, live = table_logits(table, self.temperature), live_pairs(table)
        has_positive = (table.positive & live).any(dim=1)
        negative = ~table.positive & live
        attraction = mean_over_positives(logits, table)
        if self.memory:
            repulsion = self._remembered(table, batch, logits, negative, attraction.detach())
        else:
            repulsion = masked_logsumexp(logits, negative, empty=0.0)
        if self.sigma is not None:
            attraction = self._weights(table, self.sigma) * attraction
        loss = repulsion - attraction
        if self.units == "similarity":
            loss = (loss[:, None] * row_temperature(table, self.temperature)).squeeze(1)
        # a row without positives is counted, whatever its negatives: it is infinite and gets diagnosed
        return mean_over(loss, negative.any(dim=1) | ~has_positive)

    @staticmethod
    def _weights(table: PairScores, sigma: float) -> Float[Tensor, " n"]:
        similarity = mean_over_positives(at_least_float32(table.sim.detach()), table)
        similarity = torch.where(similarity.isfinite().any(), similarity, 0.0)  # without positives all are infinite
        weights: Tensor = 2 - len(similarity) * torch.softmax(similarity / sigma, dim=0)
        return weights

    def _remembered(
        self, table: PairScores, batch: Batch, logits: Float[Tensor, "n m"], negative: Bool[Tensor, "n m"],
        attraction: Float[Tensor, " n"],
    ) -> Float[Tensor, " n"]:
        """``log(|N| u) + ℓ_p`` of every row, and the visit to the companion."""
        memory, ids = find_companion(batch.companions, self.companion, PerExample, self.name), table.anchor.ids
        with torch.no_grad():
            is_counted = negative.any(dim=1) & torch.isfinite(attraction)
            positive = torch.where(is_counted, attraction, 0.0)
            log_count = masked_logsumexp(table.log_weight.to(logits.dtype), negative, empty=0.0)
            log_sum = masked_logsumexp(logits, negative, empty=0.0)
            log_own = log_sum - log_count - positive
            log_u = memory.normaliser(ids, log_own, is_counted)
            value = log_count + log_u + positive
            # by the batch's own sum first: long embeddings have logits whose digits the difference to value would lose
            weight = (logits - log_sum[:, None] + (log_own - log_u)[:, None]).masked_fill(~negative, -torch.inf).exp()
            h = (logits - table.log_weight - positive[:, None]).masked_fill(~negative, 0.0)
            memory.remember(batch.step, ids, log_u, (weight * h).sum(dim=1), is_counted)
        linear = (weight * logits.masked_fill(~negative, 0.0)).sum(dim=1)
        return value + linear - linear.detach()
