"""Losses of SogCLR, iSogCLR and MACL from their equations, as ``rederived`` has those of sentence-embedding methods."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rederived import Rows, cosine, cosines, cross_entropy, odds


# ------------------------------------------------------------------------------------------------- SogCLR, iSogCLR
def mean_exponential(sim: Sequence[float], own: int, temperature: float) -> float:
    """g_i: mean over the row's negatives of exp(h/τ), h = s_ij - s_ip."""
    values = [math.exp((s - sim[own]) / temperature) for j, s in enumerate(sim) if j != own]
    return sum(values) / len(values)


def sogclr_weights(sim: Sequence[float], own: int, temperature: float, u: float) -> list[float]:
    """exp(h/τ) / (|N| u) of every column, 0 at the positive."""
    return [
        0.0 if j == own else math.exp((s - sim[own]) / temperature) / ((len(sim) - 1) * u)
        for j, s in enumerate(sim)
    ]


def sogclr_surrogate(
    anchors: Rows, columns: Rows, temperatures: Sequence[float], u: Sequence[float], *,
    held: tuple[Rows, Rows],
) -> float:
    """What has the gradient of SogCLR and iSogCLR: mean over i of Σ_N weight · s_ij - s_ip, the weights held.

    The first n columns are the anchors' positives; u holds the normalisers after this batch was counted.
    """
    now, still = cosines(anchors, columns), cosines(*held)
    total = 0.0
    for i, row in enumerate(now):
        weights = sogclr_weights(still[i], i, temperatures[i], u[i])
        total += sum(w * s for w, s in zip(weights, row, strict=True)) - row[i]
    return total / len(now)


def counted(u: float | None, g: float, *, gamma: float) -> float:
    """u ← (1 - γ) u + γ g; an example's first visit takes g."""
    return g if u is None else (1 - gamma) * u + gamma * g


def moved_temperature(
    sim: Sequence[float], own: int, temperature: float, u: float, velocity: float, *,
    rho: float, rate: float, beta: float, low: float, high: float, limit: float,
) -> tuple[float, float]:
    """iSogCLR's τ_i and v_i after a visit: v ← (1 - β) v + β G, τ ← τ - η v, G = log u + ρ - Σ_N weight · h/τ.

    G is clipped to ± ``limit``, τ to ``low`` … ``high``.
    """
    weights = sogclr_weights(sim, own, temperature, u)
    pull = math.log(u) + rho - sum(w * (s - sim[own]) / temperature for w, s in zip(weights, sim, strict=True))
    pull = min(max(pull, -limit), limit)
    velocity = (1 - beta) * velocity + beta * pull
    return min(max(temperature - rate * velocity, low), high), velocity


# ------------------------------------------------------------------------------------------------------------- MACL
def macl_temperature(anchors: Rows, positives: Rows, temperature: float, alpha: float, start: float) -> float:
    """τ0 (1 + α (A - A0)), A the mean cosine of the positives."""
    alignment = sum(cosine(a, p) for a, p in zip(anchors, positives, strict=True)) / len(anchors)
    return temperature * (1 + alpha * (alignment - start))


def macl(
    anchors: Rows, positives: Rows, temperature: float, alpha: float, start: float, *, held: tuple[Rows, Rows]
) -> float:
    """Mean over i of -V_i log P_i, V_i = 1/(1 - P_i) held; the temperature is held too."""
    tau = macl_temperature(*held, temperature, alpha, start)
    now, still = cosines(anchors, positives), cosines(*held)
    total = 0.0
    for i in range(len(now)):
        kept = odds([s / tau for s in still[i]], i)
        total += cross_entropy([s / tau for s in now[i]], i) * (1 + kept) / kept
    return total / len(now)
