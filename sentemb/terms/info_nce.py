"""InfoNCE: softmax cross-entropy of every anchor over its row of the table."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.errors import DataError
from sentemb.maths.softmax import live_pairs, masked_logsumexp, refuse_shares, table_logits
from sentemb.maths.table import transposed
from sentemb.terms.cosent import graded_scores
from sentemb.terms.term import Term
from sentemb.types import Batch, Examples, PairScores, Services, Temperature

MIN_TEMPERATURE = 0.01


class InfoNCE(Term):
    """Pull every anchor to its positive, away from all other candidates of its row.

        ℓ_ij = s_ij / τ + w_ij
        L = -1/n Σ_i y_i log( Σ_{p ∈ P(i)} exp ℓ_ip / Σ_j exp ℓ_ij )

    With ``directions = "both"`` the mean of L and of the same loss from candidate to anchor, over the in-batch
    square of the table (columns 0…n-1) transposed. Several positives of one anchor are summed inside the
    logarithm: one good match is enough; ``supervised_contrast``, its sibling, asks for all of them. y_i is 1, or the
    graded score of anchor i and its positive: a doubtful pair then pulls less, and an anchor of score 0 still serves
    the others as a negative.

    Args:
        temperature: τ; 0.05 in SimCSE (table D.1).
        directions: from anchors only (SimCSE), or both ways (retrieval pairs, CLIP).
        learnable_temperature: learn log τ, starting from ``temperature``, τ kept at 0.01 or above (CLIP).
        row_weight: ``score`` multiplies every example's loss with its score, at least 0 (CLHAIF); by default y is 1.
    Returns: 0 for one example with no other candidate.
    Raises:
        RecipeError: an edit divides attraction over several positives (``attraction``, some of ``mixed``).
        DataError: scores are asked for, and the data have none, or negative ones.
    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4; Gao, Yao & Chen 2021, EMNLP, eq. 1 and 5;
        both ways and the learned τ: Radford et al. 2021, ICML, section 2.5; scores: Cheng et al. 2023, Findings of
        ACL (CLHAIF), released code (``smooth_positive``).
    Deviations: none for one positive. The released SimCSE gives gradients 1/(number of devices) as large when
        several devices share a batch; here they are those of the whole batch. CLHAIF's ``smooth_all``, which spreads
        1 - y over the other columns, is not here.
    """

    refuses_shares = True

    def __init__(
        self,
        *,
        temperature: Temperature = 0.05,
        directions: Literal["one", "both"] = "one",
        learnable_temperature: bool = False,
        row_weight: Literal["score"] | None = None,
    ) -> None:
        super().__init__()
        if learnable_temperature and temperature < MIN_TEMPERATURE:
            raise ValueError(f"temperature = {temperature}; a learnable one starts at {MIN_TEMPERATURE} or above")
        self.start, self.directions, self.learnable_temperature = temperature, directions, learnable_temperature
        learned = nn.Parameter(torch.tensor(math.log(temperature))) if learnable_temperature else None
        self.register_parameter("log_temperature", learned)
        self.log_temperature: nn.Parameter | None
        self.row_weight = row_weight
        self.needs = frozenset({"scores"} if row_weight == "score" else ())

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Refuse scores that are no weights."""
        if self.row_weight == "score" and dataset.score is not None and (dataset.score < 0).any():
            row = int((dataset.score < 0).argmax())
            raise DataError(
                f'term {self.name}: row_weight = "score", but row {row + 1} has the score {dataset.score[row]:g}; '
                "scores must be at least 0"
            )

    @property
    def temperature(self) -> float | Float[Tensor, ""]:
        """τ as it is now."""
        if self.log_temperature is None:
            return self.start
        return self.log_temperature.clamp(min=math.log(MIN_TEMPERATURE)).exp()

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        refuse_shares(table, self.name)
        weight = graded_scores(self.name, batch) if self.row_weight == "score" else None
        loss = _cross_entropy(table, self.temperature, weight)
        if self.directions == "both":
            loss = (loss + _cross_entropy(transposed(table), self.temperature, weight)) / 2
        return loss


def _cross_entropy(
    table: PairScores, temperature: float | Float[Tensor, ""], weight: Float[Tensor, " n"] | None
) -> Float[Tensor, ""]:
    logits, live = table_logits(table, temperature), live_pairs(table)
    losses = masked_logsumexp(logits, live) - masked_logsumexp(logits, table.positive & live)
    if weight is not None:  # an anchor of weight 0 may have no positive, whose loss is infinite
        losses = torch.where(weight > 0, weight.to(losses.dtype) * losses, 0.0)
    return losses.mean()
