"""Negatives weighted against the bias of random choice (DebCSE)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import Ge

from sentemb.companions.companion import find_companion
from sentemb.companions.propensity import Propensity
from sentemb.edits.edit import Edit
from sentemb.maths.softmax import masked_logsumexp
from sentemb.types import Batch, PairScores


class PropensityWeights(Edit):
    """Inverse propensity weights for the negatives, and no weight for those that probably mean the same:

        v_ij = 1[sem_ij ≤ θ⁻] · min(1 / e⁻(1 - sur_ij), clip)
        log_weight[i, j] = w_ij + log v_ij + c_i
        c_i  such that  Σ exp(log_weight) = Σ exp(w)  over the row's remaining negatives

    e⁻ is the chance that random in-batch choice makes a negative of a pair with that surface dissimilarity: pairs
    with overlapping words are rare among them, so they count more. Similarities, θ⁻ and e⁻ are the companion's.
    Pairs with a text that is not in the data set (noise, augmented copies) keep their weight, and so do positives.
    Differs from ``hardness`` in weighing by how texts look, with the weights fixed before training.

    Args:
        clip: largest 1/e⁻ before self-normalisation; 1 weighs all alike.
        companion: name of the companion that knows the propensities.
    Returns:
        The table with other log-weights.
    Source: Miao, Du & Zhang 2023, CIKM, "DebCSE"; self-normalised weights: Swaminathan & Joachims 2015, NeurIPS.
    Deviations: no code is public; the formula is ours.
    """

    def __init__(self, *, clip: Annotated[float, Ge(1)] = 10.0, companion: str = "propensity") -> None:
        super().__init__()
        self.clip, self.companion = clip, companion
        self.needs = frozenset({f"companion:{companion}"})

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        companion = find_companion(batch.companions, self.companion, Propensity, self.name)
        sem, sur, is_known = companion.pairs(table.anchor.text, table.candidate.text)
        before = table.log_weight
        negative = ~table.positive & (before > float("-inf")) & is_known
        remaining = negative & (sem <= companion.negative_threshold)
        inverse = (-companion.negative_model.log_propensity(1 - sur)).clamp(max=math.log(self.clip))
        weight = before + inverse.to(before.dtype)
        total = masked_logsumexp(before, remaining, empty=0.0)
        weight = weight + (total - masked_logsumexp(weight, remaining, empty=0.0))[:, None]
        edited = torch.where(remaining, weight, before).masked_fill(negative & ~remaining, float("-inf"))
        return replace(table, log_weight=edited)
