"""What is remembered of every example from epoch to epoch: its temperature and the size of its negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sentemb.companions.companion import Companion
from sentemb.maths.softmax import faults_of_spread, masked_logsumexp
from sentemb.parts import Fraction, NonNegative, Positive
from sentemb.types import UNKNOWN, Batch, Examples, SentenceModule, Services, Temperature

_LARGEST_SLOPE = 3.0  # the released code clips the temperatures' gradient here, where both sides are of one kind


class PerExample(Companion):
    """A temperature τ_i, a normaliser u_i and a velocity v_i of every example:

        u_i ← (1 - γ) u_i + γ g_i,   g_i = mean over N(i) of exp(h_ij / τ_i),   h_ij = s_ij - s_ip
        v_i ← (1 - β) v_i + β G_i,   G_i = log u_i + ρ - Σ_N exp(h_ij / τ_i) / (|N| u_i) · h_ij / τ_i
        τ_i ← clip(τ_i - η v_i)

    u_i stands for the negatives of the whole data set, where a batch has few. G is the gradient of iSogCLR's loss for
    τ_i; it vanishes where the softmax over the negatives is ρ nats from uniform. The term ``decoupled`` with
    ``memory = true`` finds g and G in its table and uses u; the edit ``temperature`` with ``policy = "memory"`` uses τ.
    The state changes after the step. Rows of one example in one batch count as their mean. An example's first visit
    has γ = 1, so the memory acts from the second epoch on.

    Args:
        tau_init: τ_i at the start; must be the temperature of the term.
        tau_min: smallest τ_i.
        tau_max: largest τ_i.
        rho: ρ in nats; must be below the logarithm of the number of negatives, or every τ_i falls to ``tau_min``.
        rate: η of the temperatures; 0 leaves them alone (SogCLR).
        velocity: β; 1 has no memory of earlier gradients.
        gamma: γ, what a visit counts in u; 1 has no memory of earlier visits.
    Raises:
        ValueError: ``tau_init`` outside ``tau_min`` … ``tau_max``.
    Source: Yuan et al. 2022, ICML, "Provable stochastic optimization for global contrastive learning" (SogCLR); Qiu et
        al. 2023, ICML, "Not all semantics are created equal" (iSogCLR). Defaults: iSogCLR's released code for images.
    Deviations: u is kept as its logarithm, so that no small temperature overflows. G is clipped at ±3, as in the
        release for one modality.
    """

    def __init__(
        self, *, tau_init: Temperature = 0.1, tau_min: Temperature = 0.05, tau_max: Temperature = 1.0,
        rho: Positive = 0.4, rate: NonNegative = 0.03, velocity: Fraction = 0.5,
        gamma: Annotated[float, Gt(0), Le(1)] = 0.8,
    ) -> None:
        super().__init__()
        if not tau_min <= tau_init <= tau_max:
            raise ValueError(f"tau_init = {tau_init} is not between tau_min = {tau_min} and tau_max = {tau_max}")
        self.tau_init, self.tau_min, self.tau_max = tau_init, tau_min, tau_max
        self.rho, self.rate, self.velocity, self.gamma = rho, rate, velocity, gamma
        self.tau: Float[Tensor, " examples"]
        self.log_u: Float[Tensor, " examples"]
        self.speed: Float[Tensor, " examples"]
        self.is_seen: Bool[Tensor, " examples"]
        self._pending: dict[int, _Visit] = {}  # by step: what a loss found and after_step will write

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """A divergence that no batch reaches, and terms that do not fit it."""
        terms = [term for term in recipe.get("terms", ()) if _reads(term, self.name)]
        faults = faults_of_spread(self.rho, recipe) if self.rate else []
        faults += [
            f"tau_init = {self.tau_init}, but the term {term.name} has temperature = {term.settings['temperature']}; "
            "they must be equal" for term in terms if term.settings["temperature"] != self.tau_init
        ]
        if len(terms) > 1:
            names = ", ".join(term.name for term in terms)
            faults.append(f"remembers for one term, but {names} read it; give each a per_example of its own name")
        if terms and "train" in recipe and recipe["train"].nested_dims:
            faults.append("remembers the similarities of one width; leave train.nested_dims out")
        return faults

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Make the tables of the data set's examples."""
        count = int(dataset.ids.max()) + 1
        self.register_buffer("tau", torch.full((count,), self.tau_init))
        self.register_buffer("log_u", torch.zeros(count))
        self.register_buffer("speed", torch.zeros(count))
        self.register_buffer("is_seen", torch.zeros(count, dtype=torch.bool))

    # ------------------------------------------------------------------------------------------- what parts ask
    def temperature_of(self, ids: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """τ_i of every row; ``tau_init`` where a row is no example."""
        return torch.where(ids == UNKNOWN, self.tau_init, self.tau[ids.clamp(min=0)])

    @torch.no_grad()
    def normaliser(
        self, ids: Int[Tensor, " n"], log_mean: Float[Tensor, " n"], is_counted: Bool[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """log u_i of every row, with this visit in it.

        Args:
            ids: examples of the rows.
            log_mean: log g_i.
            is_counted: rows that have negatives and a positive; the others leave no trace.
        """
        same = _same_example(ids, is_counted)
        log_g = masked_logsumexp(log_mean.expand(len(ids), -1), same, empty=0.0) - _count(same).log()
        rows = ids.clamp(min=0)
        log_earlier, log_visit = log_mean.new_tensor([1 - self.gamma, self.gamma]).log()
        moved = torch.logaddexp(self.log_u[rows].to(log_g.dtype) + log_earlier, log_g + log_visit)
        return torch.where(self.is_seen[rows] & (ids != UNKNOWN), moved, log_g)

    @torch.no_grad()
    def remember(
        self, step: int, ids: Int[Tensor, " n"], log_u: Float[Tensor, " n"], mean_h: Float[Tensor, " n"],
        is_counted: Bool[Tensor, " n"],
    ) -> None:
        """Hand over what a loss found at a step; ``after_step`` writes it, and nothing changes if it does not come.

        Args:
            step: of the batch.
            ids: examples of the rows.
            log_u: what ``normaliser`` gave.
            mean_h: Σ_N exp(h_ij / τ_i) / (|N| u_i) · h_ij / τ_i.
            is_counted: as for ``normaliser``.
        """
        same = _same_example(ids, is_counted)
        slope = torch.where(is_counted, log_u + self.rho - mean_h, 0.0)
        slope = (torch.where(same, slope, 0.0).sum(dim=1) / _count(same)).clamp(-_LARGEST_SLOPE, _LARGEST_SLOPE)
        written = is_counted & (ids != UNKNOWN)
        self._pending[step] = _Visit(ids=ids[written], log_u=log_u[written], slope=slope[written])

    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: SentenceModule, services: Services) -> None:
        """Write what the step's loss found."""
        visit = self._pending.pop(batch.step, None)
        # a step that was skipped leaves its visits behind
        self._pending = {step: entry for step, entry in self._pending.items() if step > batch.step}
        if visit is None:
            return
        speed = (1 - self.velocity) * self.speed[visit.ids] + self.velocity * visit.slope.to(self.speed.dtype)
        self.speed[visit.ids] = speed
        self.tau[visit.ids] = (self.tau[visit.ids] - self.rate * speed).clamp(self.tau_min, self.tau_max)
        self.log_u[visit.ids] = visit.log_u.to(self.log_u.dtype)
        self.is_seen[visit.ids] = True


@dataclass(frozen=True, kw_only=True)
class _Visit:
    """What a loss found of its examples; rows of one example are equal."""

    ids: Int[Tensor, " k"]
    log_u: Float[Tensor, " k"]
    slope: Float[Tensor, " k"]


def _same_example(ids: Int[Tensor, " n"], is_counted: Bool[Tensor, " n"]) -> Bool[Tensor, "n n"]:
    """Which counted rows are of the row's example; of an unknown one, only the row itself."""
    same = (ids[:, None] == ids[None, :]) & (ids != UNKNOWN)[:, None]
    return (same | torch.eye(len(ids), dtype=torch.bool, device=ids.device)) & is_counted[None, :]


def _count(same: Bool[Tensor, "n n"]) -> Int[Tensor, " n"]:
    return same.sum(dim=1).clamp(min=1)


def _reads(term: Any, companion: str) -> bool:
    return bool(term.settings.get("memory")) and term.settings.get("companion") == companion
