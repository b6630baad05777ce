"""Doubtful positives share their attraction with better candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le

from sentemb.companions.momentum import faults_of_keys, teacher_similarity
from sentemb.edits.edit import Edit
from sentemb.maths.softmax import live_pairs, positive_share
from sentemb.types import Batch, PairScores, Temperature


class Soften(Edit):
    """Give a part of the attraction of doubtful pairs to the candidates that a teacher prefers:

        D(i) = { j : r_ij > max_{p ∈ P(i)} r_ip },    q_i = softmax over P(i) ∪ D(i) of r_ij / τ
        P(i) ← P(i) ∪ D(i),    share_ij ← (1 - a) share_ij + a q_ij        where D(i) is not empty

    r are the cosines of the companion. A pair is doubtful where the teacher finds another candidate nearer to the
    anchor than every positive that the data give. Either the pair is wrong or that candidate is a false negative, so it
    becomes a positive too. A pair that the teacher agrees with stays as it is, where the term ``distill`` softens all
    rows. For mined and translated pairs; ``supervised_contrast`` and ``decoupled`` read the shares.

    Args:
        weight: a, what the teacher's opinion of a doubtful pair counts.
        temperature: τ of that opinion; a smaller one gives more to the nearest candidate.
        companion: name of the companion that judges: a ``momentum`` with ``keys = true``, or a ``reference``.
    Returns:
        The table with more positives and with shares.
    Source: ours, after the idea of COMMON, that a momentum encoder softens the targets of noisy pairs.
    Deviations: only the idea is taken. Judged are the pairs that no edit has removed and whose texts the teacher knows.
    """

    sets_shares = True

    def __init__(
        self, *, weight: Annotated[float, Gt(0), Le(1)] = 0.5, temperature: Temperature = 0.05,
        companion: str = "momentum",
    ) -> None:
        super().__init__()
        self.weight, self.temperature, self.companion = weight, temperature, companion
        self.needs = frozenset({f"companion:{companion}"})

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """A momentum encoder that makes no keys."""
        return faults_of_keys(recipe, self.companion)

    @torch.no_grad()
    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        cosine, is_known = teacher_similarity(table, batch, self.companion, self.name)
        judged = live_pairs(table) & is_known
        given = table.positive & judged
        best = cosine.masked_fill(~given, -torch.inf).amax(dim=1, keepdim=True)
        # of an anchor without a known positive nothing is doubted
        preferred = judged & ~table.positive & (cosine > best) & given.any(dim=1, keepdim=True)
        is_doubtful = preferred.any(dim=1, keepdim=True)
        logits = (cosine / self.temperature).masked_fill(~(given | preferred), -torch.inf)
        opinion = torch.where(is_doubtful, logits, 0.0).softmax(dim=1)
        share = positive_share(table)
        softened = (1 - self.weight) * share + self.weight * opinion.to(share.dtype)
        return replace(
            table, positive=table.positive | preferred, share=torch.where(is_doubtful, softened, share)
        )
