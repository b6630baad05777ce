"""All pairs of a batch fitted to whether they belong together."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import live_pairs
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores


class LabelCosine(Term):
    """Squared error of the similarities to 1 for positives and to 0 for all others, both kinds counted alike.

        L = ½ mean_{(i,j) positive} (1 - s_ij)² + ½ mean_{(i,j) not} s_ij²

    over the table's live pairs. With the edit ``same_label`` the positives are the anchor's class: it is SetFit's loss
    over all pairs of a batch, so that n texts are encoded for n² pairs instead of two texts a pair. ``cosine_error``
    over the pairs of ``sentemb data make`` is SetFit as published.

    Returns: a kind that the batch lacks counts 0.
    Source: Tunstall et al. 2022, "Efficient few-shot learning without prompts" (SetFit), released code (squared error
        of the cosine to 1 or 0, as many positives as negatives).
    Deviations: pairs of the batch's rows instead of pairs drawn before training; the halves have equal weight instead
        of equal numbers of pairs.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        sim, live = at_least_float32(table.sim), live_pairs(table)
        halves = []
        for pairs, target in ((table.positive & live, 1.0), (~table.positive & live, 0.0)):
            halves.append(torch.where(pairs, (sim - target).square(), 0.0).sum() / pairs.sum().clamp(min=1))
        return (halves[0] + halves[1]) / 2
