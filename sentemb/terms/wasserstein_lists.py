"""Graded lists as two Gaussians: the batch's distributions over candidates, and those of the grades."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.terms.list_net import GradedLists
from sentemb.types import Batch, PairScores


class WassersteinLists(GradedLists):
    """Squared 2-Wasserstein distance between the rows of P and the rows of T, each taken for samples of a Gaussian.

        P_i = softmax_j(s_ij / τ + w_ij),   T_i = softmax_j(y_ij / τ_g)
        L = ‖μ_P - μ_T‖² + tr Σ_P + tr Σ_T - 2 tr (Σ_P^½ Σ_T Σ_P^½)^½

    with the mean and the unbiased covariance of the n rows. y_ij is the grade of candidate j for anchor i, which the
    edit ``given`` takes from the columns ``grade_0``, ``grade_1`` …, 0 for the candidates of others. Only the set of
    rows is matched: rows of T that change places cost nothing, where ``list_net``, its sibling, compares row by row.

    Args:
        temperature: τ.
        grade_temperature: τ_g; 1 in the released code, where many candidates make T almost flat.
    Returns: 0 where P = T.
    Raises: RecipeError where nothing put grades into the table, or the batch has one example, which has no covariance.
    Source: SyCL, released code (BatsResearch/sycl).
    Deviations: the last trace is computed as the nuclear norm of the n × n matrix of centred rows, which is equal and
        has a stable gradient, in place of eigenvalues of an m × m matrix with 1e-15 added; the grades' temperature.
    """

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        log_p, log_t, live = self.log_rows(table)
        n = len(log_p)
        if n < 2:
            raise RecipeError(f"{self.name}: one example has no covariance; train with batches of two or more")
        p, t = (torch.where(live, log.double().exp(), 0.0) for log in (log_p, log_t))
        centred_p, centred_t = ((rows - rows.mean(dim=0)) / math.sqrt(n - 1) for rows in (p, t))
        spread = centred_p.square().sum() + centred_t.square().sum()
        product = (centred_p @ centred_t.T).nan_to_num()  # of NaN svdvals raises; the spread keeps the loss NaN
        overlap: Tensor = torch.linalg.svdvals(product).sum()
        return (p.mean(dim=0) - t.mean(dim=0)).square().sum() + spread - 2 * overlap
