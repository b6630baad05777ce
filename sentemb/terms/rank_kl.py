"""Divergence between the ranks of scores and the similarities."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.terms.cosent import graded_scores
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class RankKL(Term):
    """Divergence of a softmax over the pairs' similarities from one over the ranks of their scores.

        r_i = average rank of y_i among the batch's scores, the highest first, from 0
        t_i = (n - 1 - r_i) / (n - 1)
        p = softmax(t / τ),   q = softmax(s / τ),   s_i = s_ii
        L = 1/n Σ_i p_i log(p_i / q_i)

    Both softmaxes run over the n pairs of the batch. Only the order of scores matters, as for ``cosent``, which
    compares pairs of pairs; here the best-scored pairs have nearly all of the weight.

    Args:
        temperature: τ; 0.05 in the released code.
    Returns: 0 for one pair.
    Source: CoDiEmb, released code (TencentCloudADP/youtu-embedding), with the weight 5.
    Deviations: none. The division by n, an effect of the reduction in the code, is kept: the weight belongs to it.
    """

    needs = frozenset({"scores"})

    def __init__(self, *, temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        own, score = at_least_float32(table.sim).diagonal(), graded_scores(self.name, batch)
        higher, equal = score[None, :] > score[:, None], score[None, :] == score[:, None]
        rank = higher.sum(dim=1) + (equal.sum(dim=1) - 1) / 2
        n = len(own)
        target = (n - 1 - rank).to(own) / max(n - 1, 1)
        log_p = torch.log_softmax(target / self.temperature, dim=0)
        log_q = torch.log_softmax(own / self.temperature, dim=0)
        return (log_p.exp() * (log_p - log_q)).sum() / n
