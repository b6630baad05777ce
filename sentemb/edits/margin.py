"""The positive must win by a margin."""

from __future__ import annotations

from dataclasses import replace

import torch

from sentemb.edits.edit import Edit
from sentemb.errors import RecipeError
from sentemb.maths.softmax import row_temperature
from sentemb.types import Batch, PairScores, Temperature


class Margin(Edit):
    """Lower the logits of every anchor's positives by the margin that the data give for the example:

        log_weight[i, p] = w_ip - μ_i / (τ · scale_i),   p ∈ P(i)

    so that a softmax term is content only where ``s_ip - μ_i`` exceeds the negatives. μ is the data's column
    ``margin``, in units of the similarity: how strongly the positive is preferred, for example the difference of
    several rerankers' mean scores. 0 asks for no margin, a negative one lets a doubtful positive lose. Listed after
    ``temperature``, it follows the rows' own temperatures. In ``decoupled`` it is a constant without a gradient, and
    ``triplet`` has one margin for all rows and does not read this one.

    Args:
        temperature: τ, that of the loss.
    Returns:
        The table with other log-weights of the positives.
    Source: Wang et al. 2024, arXiv:2401.06080, "Secrets of RLHF in large language models part II" (a margin by strength
        of preference); a margin in this softmax: Yang et al. 2019, IJCAI, "Improving multilingual sentence embedding
        using bi-directional dual encoder with additive margin softmax".
    Deviations: the first has margins of rewards, the second one margin for all pairs.
    """

    needs = frozenset({"margins"})

    def __init__(self, *, temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        if batch.margin is None:
            raise RecipeError("edit margin: the data have no margin column; add one, or drop the edit")
        lowered = table.log_weight - batch.margin[:, None] / row_temperature(table, self.temperature)
        return replace(table, log_weight=torch.where(table.positive, lowered, table.log_weight))
