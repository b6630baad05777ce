"""CoSENT: pairs with a higher score must be more similar, whatever the similarities are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import DataError
from sentemb.maths.similarity import at_least_float32
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class CoSENT(Term):
    """Rank the similarities of graded pairs like their scores.

        L = log( 1 + Σ_{i,k: y_i > y_k} exp((s_kk - s_ii) / τ) )

    s_ii is the similarity of anchor i and its own positive, y_i their graded score. Only the order of scores
    matters, as in Spearman's correlation; its sibling ``cosine_error`` fits their values.

    Args:
        temperature: τ; 0.05 (a factor of 20) in the source.
    Returns: 0 where all scores of the batch are equal.
    Source: Su 2022, "CoSENT: a more effective sentence vector scheme than Sentence-BERT" (kexue.fm/archives/8847).
    Deviations: none.
    """

    needs = frozenset({"scores"})

    def __init__(self, *, temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        own = at_least_float32(table.sim).diagonal()
        return ranked_as(graded_scores("cosent", batch), own / self.temperature)


def ranked_as(score: Float[Tensor, " n"], value: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """``log(1 + Σ exp(value_k - value_i))`` over the pairs that i outranks k."""
    excess = value[None, :] - value[:, None]  # [i, k] = value_k - value_i
    excess = excess.masked_fill(~(score[:, None] > score[None, :]), -torch.inf)
    return torch.logsumexp(torch.cat([excess.new_zeros(1), excess.flatten()]), dim=0)


def graded_scores(part: str, batch: Batch) -> Float[Tensor, " n"]:
    """The batch's scores.
    Raises: DataError where the data have none.
    """
    if batch.score is None:
        raise DataError(f"terms: {part} needs graded scores; add a score column to the data, or use another term")
    return batch.score
