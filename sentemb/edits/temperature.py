"""Every anchor's own temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.companions.companion import find_companion
from sentemb.companions.per_example import PerExample
from sentemb.edits.edit import Edit
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import faults_of_spread, live_pairs, masked_logsumexp, mean_over, mean_over_positives
from sentemb.parts import Count, NonNegative, Positive
from sentemb.types import Batch, Cosine, PairScores
from sentemb.types import Temperature as TemperatureSetting

_HALVINGS = 20

Policy = Literal["alignment", "cosine", "memory", "spread"]


class RowTemperature(Edit):
    """Multiply the temperature of every softmax term by a factor c_i, as a constant. By ``policy``:

        alignment   c = 1 + α (A - A₀),  A = mean_i s_ip                      the better aligned, the softer
        cosine      c = low + (high - low) (1 + cos(2π step / period)) / 2    a schedule
        memory      c_i = τ_i / tau_init  of the companion ``per_example``
        spread      c_i such that  KL( softmax_N(s_ij / (τ c_i) + w_ij) ‖ softmax_N(w_ij) ) = ρ,  low ≤ c_i ≤ high

    N are the anchor's live negatives. ``spread`` gives every anchor the same concentration on its negatives: it is
    where iSogCLR's individual temperatures settle, without ``memory``; a row that cannot reach ρ takes ``low``. Two of
    these edits multiply. Small temperatures punish the nearest negatives, large ones all alike.

    Args:
        policy: see above.
        alpha: α of ``alignment``; 0 leaves the table as it is.
        start: A₀ of ``alignment``: the mean similarity of positives at which c = 1. With the A of the untuned encoder,
            training starts at the term's own temperature.
        low: smallest factor (``cosine``, ``spread``).
        high: largest factor (``cosine``, ``spread``).
        period: steps of a cycle (``cosine``).
        rho: ρ in nats (``spread``); must be below the logarithm of the number of negatives.
        temperature: τ of the loss (``spread``).
        companion: name of the companion that remembers the temperatures (``memory``).
    Returns:
        The table with other temperatures of its rows.
    Raises:
        ValueError: α (1 + A₀) ≥ 1, at which the factor could fall to 0; low above high.
        RecipeError: ``alignment`` where the similarity is not the cosine.
    Source: alignment: Huang et al. 2023, ICML, "Model-aware contrastive learning" (MACL). cosine: Kukleva et al. 2023,
        ICLR, "Temperature schedules for self-supervised contrastive methods on long-tail data". memory: Qiu et al.
        2023, ICML, "Not all semantics are created equal" (iSogCLR). spread: ours, after iSogCLR, whose gradient for τ_i
        vanishes where this KL is ρ.
    Deviations: MACL's α and A₀ for sentences are in its appendix, not in its code; 0.5 is a third party's default.
        ``spread`` is solved in every step, where iSogCLR follows a gradient over epochs.
    """

    def __init__(
        self, *, policy: Policy, alpha: NonNegative = 0.5, start: Cosine = 0.0, low: Positive = 0.5,
        high: Positive = 2.0, period: Count = 250, rho: Positive = 0.4, temperature: TemperatureSetting = 0.05,
        companion: str = "per_example",
    ) -> None:
        super().__init__()
        if policy == "alignment" and alpha * (1 + start) >= 1:
            raise ValueError(
                f"alpha = {alpha} and start = {start} let the temperature fall to 0; alpha (1 + start) must be below 1"
            )
        if low > high:
            raise ValueError(f"low = {low} is above high = {high}")
        self.policy, self.alpha, self.start, self.low, self.high = policy, alpha, start, low, high
        self.period, self.rho, self.temperature, self.companion = period, rho, temperature, companion
        if policy == "memory":
            self.needs = frozenset({f"companion:{companion}"})
        elif policy == "alignment":  # other similarities have no bound, and the factor could fall to 0
            self.needs = frozenset({"cosine"})

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """A spread that no batch reaches."""
        return faults_of_spread(self.rho, recipe) if self.policy == "spread" else []

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        factor = self._factor(table, batch).to(at_least_float32(table.sim).dtype).expand(len(table.anchor))
        return replace(table, scale=factor if table.scale is None else table.scale * factor)

    @torch.no_grad()
    def _factor(self, table: PairScores, batch: Batch) -> Float[Tensor, ...]:
        sim = at_least_float32(table.sim)
        if self.policy == "alignment":
            has_positive = (table.positive & live_pairs(table)).any(dim=1)
            return 1 + self.alpha * (mean_over(mean_over_positives(sim, table), has_positive) - self.start)
        if self.policy == "cosine":
            wave = (1 + math.cos(2 * math.pi * batch.step / self.period)) / 2
            return sim.new_tensor(self.low + (self.high - self.low) * wave)
        if self.policy == "memory":
            memory = find_companion(batch.companions, self.companion, PerExample, self.name)
            return memory.temperature_of(table.anchor.ids) / memory.tau_init
        return spread_factor(table, temperature=self.temperature, rho=self.rho, low=self.low, high=self.high)


def spread_factor(
    table: PairScores, *, temperature: float, rho: float, low: float, high: float
) -> Float[Tensor, " n"]:
    """c_i in [low, high] at which the softmax over row i's negatives is ρ nats from their weights; halves log c."""
    sim = at_least_float32(table.sim.detach())
    negative = ~table.positive & live_pairs(table)
    prior = table.log_weight.detach() - masked_logsumexp(table.log_weight.detach(), negative, empty=0.0)[:, None]
    prior = prior.masked_fill(~negative, 0.0)

    def divergence(factor: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        tilt = (sim / (temperature * factor[:, None])).masked_fill(~negative, 0.0)
        log_q = tilt + prior - masked_logsumexp(tilt + prior, negative, empty=0.0)[:, None]
        return torch.where(negative, log_q.exp() * (log_q - prior), 0.0).sum(dim=1)

    n = len(sim)
    small, large = sim.new_full((n,), math.log(low)), sim.new_full((n,), math.log(high))
    unreachable = divergence(small.exp()) < rho
    for _ in range(_HALVINGS):  # the divergence falls as the factor grows
        middle = (small + large) / 2
        is_sharp = divergence(middle.exp()) > rho
        small, large = torch.where(is_sharp, middle, small), torch.where(is_sharp, large, middle)
    factor = torch.where(unreachable, low, ((small + large) / 2).exp())
    return torch.where(negative.any(dim=1), factor, 1.0)
