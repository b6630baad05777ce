"""An anchor's distribution over its own texts, fitted to that of a teacher's scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import DataError
from sentemb.maths.similarity import paired
from sentemb.parts import Positive
from sentemb.terms.cosent import graded_scores
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class ScoreKL(Term):
    """Divergence of an anchor's distribution over its positive and its own negatives from that of given scores.

        p_i = softmax_k(s(a_i, c_ik) / τ),  q_i = softmax_k(t_ik / τ_t)      c_i0 the positive, c_ik negative_k
        L = 1/n Σ_i Σ_k q_ik log(q_ik / p_ik)

    t_i0 is the column ``score`` and t_ik are the columns ``score_k``: a cross-encoder's or a language model's scores,
    of any sign and size. ``margin_mse`` fits their differences instead, ``distill`` a teacher's similarities to the
    whole batch. It reads the views and needs no edit ``given``.

    Args:
        temperature: τ of the encoder that learns.
        score_temperature: τ_t of the scores; 1 for logits, the encoder's own for cosines.
    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2, over an anchor's list.
    Deviations: none; the factor τ² for large temperatures is left out.
    """

    needs = frozenset({"negative_scores"})

    def __init__(self, *, temperature: Temperature = 0.05, score_temperature: Positive = 1.0) -> None:
        super().__init__()
        self.temperature, self.score_temperature = temperature, score_temperature

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        if not batch.negative_scores:
            raise DataError(f"term {self.name}: the negatives have no scores; add the columns score, score_1, …")
        anchor, names = batch.views["anchor"].embedding, ("positive", *batch.negative_scores)
        own = torch.stack([paired(anchor, batch.views[name].embedding, table.similarity) for name in names], dim=1)
        given = torch.stack([graded_scores(self.name, batch), *batch.negative_scores.values()], dim=1).to(own.dtype)
        log_p = F.log_softmax(own / self.temperature, dim=1)
        log_q = F.log_softmax(given / self.score_temperature, dim=1)
        return (log_q.exp() * (log_q - log_p)).sum(dim=1).mean()
