"""InfoNCE: softmax cross-entropy of every anchor over its row of the table."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.errors import DataError
from sentemb.maths.softmax import (
    live_pairs,
    masked_logsumexp,
    mean_over_positives,
    refuse_shares,
    table_logits,
    weighted_mean,
)
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
    logarithm: one good match is enough; ``supervised_contrast``, its sibling, asks for all of them. With ``positives =
    "apart"`` every positive is contrasted with the negatives alone, and never with another positive:

        L = -1/n Σ_i y_i mean_{p ∈ P(i)} log( exp ℓ_ip / (exp ℓ_ip + Σ_{j ∉ P(i)} exp ℓ_ij) )

    y_i is 1, or the graded score of anchor i and its positive: a doubtful pair then pulls less, and an anchor of
    score 0 still serves the others as a negative. With the column ``weight``, Σ y_i stands in the place of n.

    Args:
        temperature: τ; 0.05 in SimCSE (table D.1).
        directions: from anchors only (SimCSE), or both ways (retrieval pairs, CLIP).
        learnable_temperature: learn log τ, starting from ``temperature``, τ kept at 0.01 or above (CLIP).
        row_weight: ``score`` multiplies every example's loss with its score, at least 0 (CLHAIF); ``weight`` takes the
            mean of the losses weighted by the column ``weight`` (GCL); by default y is 1.
        positives: several of one anchor together, inside one logarithm, or apart.
    Returns: 0 for one example with no other candidate.
    Raises:
        RecipeError: an edit divides attraction over several positives (``attraction``, some of ``mixed``).
        DataError: scores or weights are asked for, and the data have none, or negative ones.
    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4; Gao, Yao & Chen 2021, EMNLP, eq. 1 and 5;
        both ways and the learned τ: Radford et al. 2021, ICML, section 2.5; scores: Cheng et al. 2023, Findings of
        ACL (CLHAIF), released code (``smooth_positive``); positives apart: what NT-Xent computes over labels.
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
        row_weight: Literal["score", "weight"] | None = None,
        positives: Literal["together", "apart"] = "together",
    ) -> None:
        super().__init__()
        if learnable_temperature and temperature < MIN_TEMPERATURE:
            raise ValueError(f"temperature = {temperature}; a learnable one starts at {MIN_TEMPERATURE} or above")
        self.start, self.directions, self.learnable_temperature = temperature, directions, learnable_temperature
        learned = nn.Parameter(torch.tensor(math.log(temperature))) if learnable_temperature else None
        self.register_parameter("log_temperature", learned)
        self.log_temperature: nn.Parameter | None
        self.row_weight, self.positives = row_weight, positives
        self.needs = frozenset(() if row_weight is None else {f"{row_weight}s"})

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Refuse scores that are no weights."""
        for where, rows in self.sources_of(dataset).items() if self.row_weight == "score" else ():
            if rows.score is not None and (rows.score < 0).any():
                row = int((rows.score < 0).argmax())
                raise DataError(
                    f'term {self.name}: row_weight = "score", but {where}row {row + 1} has the score '
                    f"{rows.score[row]:g}; scores must be at least 0"
                )

    @property
    def temperature(self) -> float | Float[Tensor, ""]:
        """τ as it is now."""
        if self.log_temperature is None:
            return self.start
        return learned_temperature(self.log_temperature)

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        refuse_shares(table, self.name)
        losses = [self._losses(table)]
        if self.directions == "both":
            losses.append(self._losses(transposed(table)))
        return torch.stack([self._mean(rows, batch) for rows in losses]).mean()

    def _losses(self, table: PairScores) -> Float[Tensor, " n"]:
        logits, live = table_logits(table, self.temperature), live_pairs(table)
        if self.positives == "together":
            return masked_logsumexp(logits, live, empty=0.0) - masked_logsumexp(logits, table.positive & live)
        own = logits.masked_fill(~live, 0.0)
        others = masked_logsumexp(logits, ~table.positive & live)[:, None]
        return -mean_over_positives(own - torch.logaddexp(own, others), table)

    def _mean(self, losses: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, ""]:
        if self.row_weight == "weight":
            return weighted_mean(losses, row_weights(self.name, batch))
        if self.row_weight == "score":  # an anchor of score 0 may have no positive, whose loss is infinite
            score = graded_scores(self.name, batch).to(losses.dtype)
            losses = torch.where(score > 0, score * losses, 0.0)
        return losses.mean()


def row_weights(part: str, batch: Batch) -> Float[Tensor, " n"]:
    """The batch's weights.
    Raises: DataError where the data have none.
    """
    if batch.weight is None:
        raise DataError(f"terms: {part} needs weights; add a weight column to the data, or leave out row_weight")
    return batch.weight


def learned_temperature(log_temperature: nn.Parameter) -> Float[Tensor, ""]:
    """τ of its logarithm, which is held at ``MIN_TEMPERATURE`` or above, from where its gradient can raise it again."""
    log_temperature.data.clamp_(min=math.log(MIN_TEMPERATURE))
    return log_temperature.exp()
