"""Differences of similarities fitted to a teacher's."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import DataError
from sentemb.maths.similarity import paired
from sentemb.parts import Positive
from sentemb.terms.cosent import graded_scores
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores


class MarginMSE(Term):
    """Fit by how much an anchor's positive beats each of its negatives to the same difference of a teacher's scores.

        L = mean_{i, k} ( s(a_i, p_i) - s(a_i, n_ik) - (t_i - t_ik) / unit )²

    t_i is the column ``score`` and t_ik are the columns ``score_k``: a cross-encoder's scores of the anchor with its
    positive and with ``negative_k``, of any sign. Only their differences matter, where ``cosine_error`` fits the scores
    themselves. It reads the views and needs no edit ``given``.

    Args:
        unit: the difference of scores that means a difference of 1 in similarity. Logits of a cross-encoder differ by
            ten and more, cosines by two at most: ``unit`` near the largest difference of scores, or ``similarity =
            "dot"`` with 1.
    Source: Hofstätter et al. 2020, arXiv:2010.02666, "Improving efficient neural ranking models with cross-architecture
        knowledge distillation" (Margin-MSE); several negatives as in sentence-transformers' ``MarginMSELoss``.
    Deviations: the scores can be scaled, for cosines; the paper compares inner products.
    """

    needs = frozenset({"negative_scores"})

    def __init__(self, *, unit: Positive = 1.0) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        if not batch.negative_scores:
            raise DataError(f"term {self.name}: the negatives have no scores; add the columns score, score_1, …")
        teacher, anchor = graded_scores(self.name, batch), batch.views["anchor"].embedding
        own = paired(anchor, batch.views["positive"].embedding, table.similarity)
        errors = [
            own - paired(anchor, batch.views[name].embedding, table.similarity) - (teacher - score) / self.unit
            for name, score in batch.negative_scores.items()
        ]
        return torch.stack(errors).square().mean()
