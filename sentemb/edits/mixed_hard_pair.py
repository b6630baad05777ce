"""Anchors between their least similar classmate and their most similar stranger."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sentemb.edits.edit import Edit
from sentemb.edits.mixed_partners import beta_draws, with_mixed_anchors
from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import live_pairs
from sentemb.parts import Fraction, Positive
from sentemb.types import UNKNOWN, Batch, PairScores


class MixedHardPair(Edit):
    """Replace a part of the anchors by a mixture of the two hardest rows of their row of the table:

        p = the least similar positive,  q = the most similar negative
        u_i ← normalise(λ_i u_p + (1 - λ_i) u_q),   λ_i ~ Beta(c, c)

    The positives are then the columns of the anchor's class with the share λ and those of q's class with 1 - λ, equally
    inside a class. List it behind ``same_label``; ``supervised_contrast`` and ``prototypes`` read the shares. The
    gradient reaches p and q. An anchor with fewer than two positives, or without a negative, stays.

    Args:
        portion: share of the anchors that are mixed, drawn anew each step.
        concentration: c; 1 in Core-tuning.
    Returns:
        The table with other anchors, similarities, positives and shares.
    Raises:
        RecipeError: the rows have no labels, or the similarity is not the cosine.
    Source: Zhang et al. 2021, NeurIPS, "Unleashing the power of contrastive self-supervised visual models via
        contrast-regularized fine-tuning" (Core-tuning).
    Deviations: a mixture stands in the anchor's place, where the paper has both. In the release the least similar
        positive is an argmin over similarities times a mask, whose zeros win; labels are mixed by powers of ten.
    """

    needs = frozenset({"cosine", "labels"})
    sets_shares = True

    def __init__(self, *, portion: Fraction = 0.5, concentration: Positive = 1.0) -> None:
        super().__init__()
        self.portion, self.concentration = portion, concentration

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        label = table.candidate.label
        if label is None:
            raise RecipeError(f"edit {self.name}: the data have no label column; add one, or drop the edit")
        n = len(table.anchor)
        live, sim = live_pairs(table), table.sim.detach()
        positive, negative = table.positive & live, ~table.positive & live
        farthest = sim.masked_fill(~positive, torch.inf).argmin(dim=1)
        hardest = sim.masked_fill(~negative, -torch.inf).argmax(dim=1)
        own = beta_draws(n, self.concentration, batch.generator)
        is_mixed = torch.rand(n, generator=batch.generator) < self.portion
        can_mix = (positive.sum(dim=1) > 1) & negative.any(dim=1)
        own = torch.where(is_mixed.to(can_mix.device) & can_mix, own.to(can_mix.device), 1.0)[:, None]
        unit = F.normalize(at_least_float32(table.candidate.embedding), dim=1)
        other = label[hardest]
        strangers = (label[None, :] == other[:, None]) & (other != UNKNOWN)[:, None] & negative
        strangers = strangers.scatter(1, hardest[:, None], True)
        share = strangers.to(own.dtype)
        return with_mixed_anchors(
            table, own.to(unit), base=unit[farthest], other=unit[hardest], positive=strangers,
            share=share / share.sum(dim=1, keepdim=True), log_weight=table.log_weight,
        )
