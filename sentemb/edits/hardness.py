"""Hard negatives count more."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt

from sentemb.edits.edit import Edit
from sentemb.maths.softmax import live_pairs, masked_logsumexp, row_temperature
from sentemb.parts import Count, NonNegative, Whole
from sentemb.types import Batch, PairScores, Temperature

_GAP = 0.6  # between the cosines of positives and negatives: 0.9 and 0.3 of dropout twins early in training


class Hardness(Edit):
    """Weight every negative by how similar it is now, and optionally subtract the false negatives' expected share.

    With ``keep``, only a window of an anchor's negatives by similarity stays, ranks skip + 1 … skip + keep; the others
    are removed: the hardest teach most, the very hardest are the likeliest false negatives. With N(i) the live
    negatives of anchor i, w the log-weights so far and τ that of the row:

        log_weight[i, j] = w_ij + β s_ij / τ + c_i,   j ∈ N(i)
        c_i  such that  Σ_N exp(log_weight) = Σ_N exp(w)          (the mean weight stays what it was)

    and, where τ⁺ > 0, every negative of the row moves by ``log G_i - log S_i``:

        S_i = Σ_N exp(s_ij/τ + log_weight_ij),   n_i = Σ_N exp(w_ij)
        G_i = max( (S_i - τ⁺ n_i exp(s_i⁺/τ)) / (1 - τ⁺),  n_i exp(-1/τ) )

    so that the row's negatives sum to the debiased estimate G, in value and in gradient. The weights β s/τ + c carry
    no gradient. ``false_negative`` removes known false negatives; this one corrects for unknown ones on average.

    Args:
        beta: β, concentration on hard negatives; 1 in the paper's text experiments, 0 weighs all alike.
        temperature: τ, that of the loss.
        class_prior: τ⁺, probability that a random negative means what the anchor means; 0 leaves the correction out.
            At SimCSE's τ = 0.05 only values below about exp((s⁻ - s⁺)/τ) leave G above its floor, where negatives
            have a gradient: the paper has τ = 0.5.
        keep: negatives of an anchor that stay; None: all.
        skip: of an anchor's most similar negatives, how many are removed first.
        among: which negatives ``keep`` and ``skip`` rank: all, or those alone that edits before this one have added (a
            queue's); the batch's then stay, which a loss with ``directions = "both"`` needs for its second direction.
    Returns:
        The table with other log-weights of the negatives; removed pairs stay removed, positives are unchanged.
    Source: Robinson et al. 2021, ICLR, "Contrastive learning with hard negative samples", equations 3 to 5;
        Chuang et al. 2020, NeurIPS, "Debiased contrastive learning", equation 8 (G and its floor); keep: Wang & Liu
        2021, CVPR, "Understanding the behaviour of contrastive loss" (the hard contrastive loss).
    Deviations: the released code lets gradients through the weights; here they are constants, which is what
        importance weights are. With several positives, exp(s_i⁺/τ) is their mean.
    """

    def __init__(
        self, *, beta: NonNegative = 1.0, temperature: Temperature = 0.05,
        class_prior: Annotated[float, Ge(0), Lt(1)] = 0.0, keep: Count | None = None, skip: Whole = 0,
        among: Literal["all", "added"] = "all",
    ) -> None:
        super().__init__()
        self.beta, self.temperature, self.class_prior = beta, temperature, class_prior
        self.keep, self.skip, self.among = keep, skip, among

    def notes(self) -> list[str]:
        """A class prior with which the floor of the debiased estimate takes over."""
        largest = math.exp(-_GAP / self.temperature)
        if self.class_prior < largest:
            return []
        return [
            f"class_prior = {self.class_prior:g} at temperature = {self.temperature:g}: where a positive's cosine is "
            f"{_GAP} above a negative's, as with dropout twins, negatives are at the estimate's floor and have no "
            f"gradient; take a class_prior below {largest:.2g}, or the paper's temperature = 0.5 here and in the loss"
        ]

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        before = table.log_weight
        negative = ~table.positive & (before > float("-inf"))
        if self.keep is not None or self.skip:
            ranked = negative.clone()
            if self.among == "added":
                ranked[:, : len(table.anchor)] = False
            outside = ranked & ~self._window(table.sim.detach(), ranked)
            before, negative = before.masked_fill(outside, float("-inf")), negative & ~outside
        tilt = before + self.beta * table.sim.detach() / row_temperature(table, self.temperature)
        total = masked_logsumexp(before, negative, empty=0.0)
        weight = tilt + (total - masked_logsumexp(tilt, negative, empty=0.0))[:, None]
        if self.class_prior:
            weight = weight + self._debias(table, weight, negative, total)[:, None]
        return replace(table, log_weight=torch.where(negative, weight, before))

    def _window(self, sim: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """Which negatives have ranks skip + 1 … skip + keep by similarity; ties by column."""
        order = sim.masked_fill(~negative, float("-inf")).sort(dim=1, descending=True, stable=True).indices
        rank = torch.arange(sim.shape[1], device=sim.device)
        inside = (rank >= self.skip) & (rank < self.skip + (self.keep or sim.shape[1]))
        return torch.zeros_like(negative).scatter(1, order, inside.expand(len(sim), -1))

    def _debias(
        self, table: PairScores, weight: torch.Tensor, negative: torch.Tensor, total: torch.Tensor
    ) -> torch.Tensor:
        """``log G - log S`` of every row, with gradient; 0 where a row has no negative or no positive."""
        temperature, positive = row_temperature(table, self.temperature), table.positive & live_pairs(table)
        logits = table.sim / temperature
        log_sum = masked_logsumexp(logits + weight, negative, empty=0.0)
        mean_positive = masked_logsumexp(logits, positive, empty=0.0) - positive.sum(1).clamp(min=1).log()
        floor = total - torch.as_tensor(1 / temperature).reshape(-1).to(total) - log_sum
        # in units of S and in logarithms: at small temperatures the positives' share is beyond any exponential
        log_share = math.log(self.class_prior) + total + mean_positive - log_sum
        is_above = log_share < 0
        estimate = torch.log1p(-log_share.masked_fill(~is_above, -1.0).exp()) - math.log1p(-self.class_prior)
        moved = torch.where(is_above, torch.maximum(estimate, floor), floor)
        return torch.where(negative.any(1) & positive.any(1), moved, torch.zeros_like(moved))
