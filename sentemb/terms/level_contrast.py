"""Labels of several levels: the nearer two texts are in the hierarchy, the more similar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import MinLen
from jaxtyping import Bool, Float
from pydantic import AfterValidator
from torch import Tensor

from sentemb.errors import DataError, RecipeError
from sentemb.maths.softmax import live_pairs, masked_logsumexp, mean_over, table_logits
from sentemb.maths.table import take_rows, with_candidates
from sentemb.parts import NonNegative
from sentemb.terms.term import Term
from sentemb.types import UNKNOWN, Batch, Examples, PairScores, Services, Temperature

Weights = Annotated[Sequence[NonNegative], MinLen(1), AfterValidator(tuple)]


class LevelContrast(Term):
    """Contrast at every level of the labels, against what is farther away in the hierarchy.

    With the labels of L levels, the finest first, and ℓ_ij = s_ij / τ + w_ij over the in-batch candidates,

        P_l(i) = {j: same label at level l, another at level l - 1}      (level 1: the same label)
        N_l(i) = {j: another label at level l}
        L = -Σ_l weight_l mean_{i: P_l(i) not empty} log( e^{m_il} / (e^{m_il} + Σ_{j ∈ N_l(i)} e^{ℓ_ij}) )
        m_il = mean_{j ∈ P_l(i)} ℓ_ij

    The finest level is the column ``label``, the coarser ones ``label_2`` …; an unknown label (-1) is neither the same
    nor another. The mean of logits stands inside the exponential: with one level this is neither of the two sums of
    ``info_nce`` and ``supervised_contrast``. Vectors trained so suit nearest neighbours, to which texts of a new label
    are added without training.

    Args:
        temperature: τ.
        weights: of the levels, finest first; by default 1 each.
        stop_keys: candidates carry no gradient.
    Returns: 0 where no anchor has a positive at any level.
    Raises:
        DataError: other weights than levels, before training.
    Source: DeTeCtive, released code (heyongxin233/DeTeCtive): levels, mean of logits, τ 0.07, keys without gradient.
    Deviations: candidates are the other view of the batch's texts, where the code compares the rows with themselves;
        masked pairs are left out, where the code multiplies their logits by 0, so that each adds e⁰. All anchors have
        all levels; the code gives texts by humans one level of the summed weight. Its further classifier of two
        classes is not here.
    """

    needs = frozenset({"labels"})

    def __init__(
        self, *, temperature: Temperature = 0.07, weights: Weights | None = None, stop_keys: bool = True
    ) -> None:
        super().__init__()
        self.temperature, self.weights, self.stop_keys = temperature, weights, stop_keys

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Refuse other weights than levels."""
        for where, rows in self.sources_of(dataset).items():
            levels = 1 + (0 if rows.levels is None else rows.levels.shape[1])
            if self.weights is not None and len(self.weights) != levels:
                names = "".join(f", label_{k}" for k in range(2, levels + 1))
                raise DataError(
                    f"term {self.name}: {where}weights = {list(self.weights)} are for {len(self.weights)} levels of "
                    f"labels; the data have {levels} (label{names})"
                )

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        label, n = table.anchor.label, len(table.anchor)
        if label is None:
            raise RecipeError(f"{self.name}: the data have no label column; add label, and label_2 … for coarser ones")
        if self.stop_keys:
            keys = take_rows(table.candidate, slice(n))
            table = with_candidates(table, replace(keys, embedding=keys.embedding.detach()))
        logits, live = table_logits(table, self.temperature)[:, :n], live_pairs(table)[:, :n]
        labels = label[:, None] if batch.levels is None else torch.cat([label[:, None], batch.levels], dim=1)
        weights = self.weights or [1.0] * labels.shape[1]
        apart = live  # not below a common finer label: everything at the finest level
        loss = logits.new_zeros(())
        for weight, level in zip(weights, labels.unbind(dim=1), strict=True):
            is_known = live & (level != UNKNOWN)[:, None] & (level != UNKNOWN)[None, :]
            same = level[:, None] == level[None, :]
            loss = loss + weight * _mean_logit_contrast(logits, is_known & same & apart, is_known & ~same)
            apart = is_known & ~same
        return loss


def _mean_logit_contrast(
    logits: Float[Tensor, "n n"], positive: Bool[Tensor, "n n"], negative: Bool[Tensor, "n n"]
) -> Float[Tensor, ""]:
    """Over the rows that have a positive."""
    attraction = torch.where(positive, logits, 0.0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    repulsion = masked_logsumexp(logits, negative)
    return mean_over(torch.logaddexp(attraction, repulsion) - attraction, positive.any(dim=1))
