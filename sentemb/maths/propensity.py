"""How likely a biased rule is to pick a pair, given one number about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Logistic:
    """``propensity(x) = 1 / (1 + exp(-(intercept + slope · x)))``."""

    intercept: float
    slope: float

    def log_propensity(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """``log propensity`` without overflow."""
        return torch.nn.functional.logsigmoid(self.intercept + self.slope * value)


@dataclass(frozen=True)
class Candidates:
    """Possible positives of n texts."""

    row: NDArray[np.int64]  # (n, c) rows of the data set
    sem: NDArray[np.float32]  # (n, c) reference cosine
    log_propensity: NDArray[np.float32]  # (n, c) log of the chance that the plain rule picks the pair
    is_known: NDArray[np.bool_]  # (n,) whether the text is in the data set


def fit_logistic(value: NDArray[np.float64], is_picked: NDArray[np.bool_]) -> Logistic:
    """Maximum likelihood by Newton's method, with a ridge of 1 on the slope. The rule is known to pick more at larger
    values; where the sample says otherwise, or where nothing or everything was picked, the slope is 0 and the
    propensity the share of picked pairs, by Laplace (k + 1) / (n + 2)."""
    picked = float(is_picked.sum())
    share = (picked + 1) / (len(value) + 2)
    constant = Logistic(float(np.log(share / (1 - share))), 0.0)
    if picked in (0, len(value)):
        return constant
    centre = float(value.mean())
    design, weights = np.stack([np.ones_like(value), value - centre], axis=1), np.array([constant.intercept, 0.0])
    ridge = np.diag([0.0, 1.0])  # a weak pull of the slope to 0: separable pairs would send it to infinity
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (is_picked - chance) - ridge @ weights
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + ridge + 1e-9 * np.eye(2)
        move = np.linalg.solve(curve, slope)
        weights += move * min(1.0, 5.0 / max(float(np.abs(move).max()), 1e-12))  # a full step can overshoot
        if np.abs(move).max() < 1e-10:
            break
    if weights[1] < 0:
        return constant
    return Logistic(float(weights[0] - weights[1] * centre), float(weights[1]))
