"""Spectral contrast: a low-rank approximation of who is whose positive, without a softmax."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import live_pairs, mean_over_positives
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Rows


class Spectral(Term):
    """Inner products of positives up, squares of those of others down. With rows z, no longer than √μ:

        L = ( -2 mean_i z_i · z_p + Σ_i Σ_{j ∉ P(i)} e^{w_ij} (z_i · z_j)² / Σ_i Σ_{j ∉ P(i)} e^{w_ij} ) / μ

    Its minimum is a factorisation of the matrix that says how likely two texts are views of one. There is no
    temperature: a negative is pushed in proportion to its similarity, and one that is orthogonal is left alone, where
    ``info_nce`` pushes it further. Several positives are averaged, by their shares where an edit divides attraction.

    Args:
        maximum: μ, the largest squared length of a row; 1 in the release.
    Returns: only the first part where no negative is left.
    Source: HaoChen et al. 2021, NeurIPS, "Provable guarantees for self-supervised deep learning with spectral
        contrastive loss" (released code).
    Deviations: negatives may have weights, which the table gives them.
    """

    def __init__(self, *, maximum: Positive = 1.0) -> None:
        super().__init__()
        self.maximum = maximum

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        factor = [self._factor(rows, table.similarity == "cosine") for rows in (table.anchor, table.candidate)]
        product = at_least_float32(table.sim) * factor[0][:, None] * factor[1]
        negative = ~table.positive & live_pairs(table)
        weight = torch.where(negative, table.log_weight, -torch.inf).exp()
        repulsion = (weight * product.square()).sum() / weight.sum().clamp(min=1e-12)
        return (repulsion - 2 * mean_over_positives(product, table).mean()) / self.maximum

    def _factor(self, rows: Rows, is_cosine: bool) -> Float[Tensor, " n"]:
        """What the rows' similarities are multiplied with to become inner products of rows within √μ."""
        length: Tensor = torch.linalg.vector_norm(at_least_float32(rows.embedding), dim=1)
        within = length.clamp(max=math.sqrt(self.maximum))
        return within if is_cosine else within / length.clamp(min=1e-12)
