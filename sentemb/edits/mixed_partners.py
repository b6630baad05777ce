"""Anchors that are mixtures of two examples, with both of their positives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.edits.edit import Edit
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import positive_share
from sentemb.maths.table import with_anchors
from sentemb.parts import Fraction, Positive
from sentemb.types import Batch, PairScores


class MixedPartners(Edit):
    """Replace a part of the anchors by mixtures with another example's anchor, their partner π(i) ≠ i:

        u_i ← normalise(λ_i u_i + (1 - λ_i) u_π(i)),   λ_i ~ Beta(c, c)
        share_i ← λ_i share_i + (1 - λ_i) share_π(i)

    so that a mixture is attracted to the positives of both examples, by their parts in it. Its gradient reaches both
    anchors. ``supervised_contrast`` and ``decoupled`` read the shares. ``mixed``, its sibling, makes negatives.

    Args:
        portion: share of the anchors that are mixed, drawn anew each step.
        concentration: c; small values leave most mixtures near one of the two examples.
        low: smallest λ; 0.8 makes mixtures that are still their anchor (Core-tuning's hard negatives).
    Returns:
        The table with other anchors, similarities, positives and shares. One example alone stays as it is.
    Raises:
        RecipeError: the similarity is not the cosine.
    Source: Kim et al. 2020, "MixCo: mix-up contrastive learning"; Kumar et al. 2024, "Harnessing shared relations via
        multimodal mixup contrastive learning" (M3CoL); low: Zhang et al. 2021, NeurIPS (Core-tuning).
    Deviations: M3CoL mixes both sides in turn, here the anchors alone; its permutation has fixed points, whose row of
        targets it overwrites.
    """

    needs = frozenset({"cosine"})
    sets_shares = True

    def __init__(self, *, portion: Fraction = 0.5, concentration: Positive = 0.15, low: Fraction = 0.0) -> None:
        super().__init__()
        self.portion, self.concentration, self.low = portion, concentration, low

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        n = len(table.anchor)
        if n == 1:
            return table
        order = torch.randperm(n, generator=batch.generator)
        partner = torch.empty_like(order)
        partner[order] = order.roll(-1)  # one cycle through all examples: nobody is its own partner
        partner = partner.to(table.sim.device)
        own = beta_draws(n, self.concentration, batch.generator).clamp(min=self.low)
        is_mixed = torch.rand(n, generator=batch.generator) < self.portion
        own = torch.where(is_mixed, own, 1.0).to(at_least_float32(table.sim))[:, None]
        return with_mixed_anchors(
            table, own,
            other=F.normalize(at_least_float32(table.anchor.embedding), dim=1)[partner],
            positive=table.positive[partner],
            share=positive_share(table)[partner],
            log_weight=table.log_weight[partner],
        )


def beta_draws(
    count: int, first: float, generator: torch.Generator | None, second: float | None = None
) -> Float[Tensor, " n"]:
    """Draws of Beta(first, second), second = first by default, that depend on the generator alone."""
    seed = int(torch.randint(2**62, (), generator=generator))
    drawn = np.random.default_rng(seed).beta(first, first if second is None else second, size=count)
    return torch.from_numpy(drawn.astype(np.float32))


def with_mixed_anchors(
    table: PairScores, own: Float[Tensor, "n 1"], *, other: Float[Tensor, "n d"], positive: Tensor, share: Tensor,
    log_weight: Tensor, base: Float[Tensor, "n d"] | None = None,
) -> PairScores:
    """The table whose anchor i is ``own`` parts of itself (or of ``base``) and else ``other``, of unit length.

    Args:
        own: λ; rows where it is 1 stay what they are.
        other: unit vectors.
        positive: positives of the others; ``share``, ``log_weight``: theirs too.
        base: unit vectors in place of the anchors.
    """
    unit = F.normalize(at_least_float32(table.anchor.embedding), dim=1)
    is_mixed = own < 1
    mixture = F.normalize(own * (unit if base is None else base) + (1 - own) * other, dim=1)
    anchor = replace(table.anchor, embedding=torch.where(is_mixed, mixture, at_least_float32(table.anchor.embedding)))
    joined = table.positive | (positive & is_mixed)
    return replace(
        with_anchors(table, anchor),
        positive=joined,
        log_weight=torch.where(joined & ~table.positive, log_weight, table.log_weight),
        share=own * positive_share(table) + (1 - own) * share,
    )
