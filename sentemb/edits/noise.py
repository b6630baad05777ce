"""Negatives that are no text: random points where the space is too empty of anchors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.edits.edit import Edit
from sentemb.maths.similarity import at_least_float32, pairwise
from sentemb.maths.table import add_candidates, extra_rows
from sentemb.parts import Count, Positive, Whole
from sentemb.types import Batch, PairScores, Similarity, Temperature


class Noise(Edit):
    """Append k random points, moved a few steps towards the anchors:

        ê ~ N(0, I),   ê ← ê + η g / ‖g‖  (``steps`` times),   g = ∂U/∂ê
        U = Σ_i log Σ_k exp( s(h_i, ê_k) / τ )

    U is the part of the contrastive loss that depends on the noise; climbing it moves the points to where anchors
    crowd, so that pushing anchors away from them makes the embeddings more uniform. The points start with the mean
    length of the anchors, take no gradient, and have no identity.

    Args:
        count: k, noise points of the whole batch; with 64, as many as the batch's anchors at SimCSE's batch size.
        steps: gradient ascent steps; 0 leaves the points Gaussian.
        step_size: η, length of one step in units of the anchors' mean length.
        temperature: τ of U.
    Returns:
        The table with ``count`` more columns.
    Source: Zhou et al. 2022, ACL, "Debiased contrastive learning of unsupervised sentence representations" (DCLR),
        section 4.1, equations 3 to 5.
    Deviations: lengths are relative to the anchors' (the paper's space is not normalised, so its absolute step size
        does not carry over); the number of points is fixed instead of a multiple of the batch size. The released code
        climbs the cross-entropy over the batch's columns and the noise, at a step size that moves the points by 4e-5
        of their length.
    """

    def __init__(
        self, *, count: Count = 64, steps: Whole = 4, step_size: Positive = 0.1, temperature: Temperature = 0.05
    ) -> None:
        super().__init__()
        self.count, self.steps, self.step_size, self.temperature = count, steps, step_size, temperature

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        anchor = at_least_float32(table.anchor.embedding.detach())
        width = anchor.shape[1]
        # drawn on the CPU: the same on every device and machine
        drawn = torch.randn(self.count, width, generator=batch.generator).to(anchor)
        length = anchor.norm(dim=1).mean()
        noise = F.normalize(drawn, dim=1) * length
        for _ in range(self.steps):
            slope = non_uniformity_slope(anchor, noise, self.temperature, table.similarity)
            noise = noise + self.step_size * length * F.normalize(slope, dim=1)
        return add_candidates(table, extra_rows(noise.to(table.candidate.embedding.dtype), table.candidate))


def non_uniformity_slope(
    anchor: Float[Tensor, "n d"], noise: Float[Tensor, "k d"], temperature: float, similarity: Similarity
) -> Float[Tensor, "k d"]:
    """``∂/∂noise Σ_i log Σ_k exp(s(anchor_i, noise_k) / τ)``."""
    # a training step may run this under no_grad (GradCache, evaluation of the loss)
    with torch.enable_grad():
        moving = noise.detach().requires_grad_()
        energy = torch.logsumexp(pairwise(anchor, moving, similarity) / temperature, dim=1).sum()
    return torch.autograd.grad(energy, moving)[0]
