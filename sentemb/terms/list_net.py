"""Graded lists: every anchor's distribution over the candidates follows their grades."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.edits.given import Given
from sentemb.errors import RecipeError
from sentemb.maths.softmax import live_pairs, masked_log_softmax, table_logits
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class GradedLists(Term):
    """Base of the losses that compare P, the softmax of an anchor's similarities, with T, that of its grades."""

    needs = frozenset({"grades"})

    def __init__(self, *, temperature: Temperature = 0.05, grade_temperature: Positive = 0.5) -> None:
        super().__init__()
        self.temperature, self.grade_temperature = temperature, grade_temperature

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """No edit that puts grades into its table."""
        if any(isinstance(edit, Given) and edit.name not in self.without for edit in recipe.get("edits", [Given()])):
            return []
        return ['reads the grades that the edit "given" puts into the table: add [[edits]] use = "given"']

    def log_rows(
        self, table: PairScores
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
        """log P, log T and which pairs are live; 0 elsewhere."""
        if table.grade is None:
            raise RecipeError(f'{self.name}: the table has no grades; add [[edits]] use = "given"')
        live = live_pairs(table)
        log_p = masked_log_softmax(table_logits(table, self.temperature), live)
        return log_p, masked_log_softmax(table.grade.to(log_p) / self.grade_temperature, live), live


class ListNet(GradedLists):
    """Cross-entropy between the softmax of the grades and that of the similarities, over every anchor's row.

        P_i = softmax_j(s_ij / τ + w_ij),   T_i = softmax_j(y_ij / τ_g)
        L = -1/n Σ_i Σ_j T_ij log P_ij

    y_ij is the grade of candidate j for anchor i, which the edit ``given`` takes from the columns ``grade_0``,
    ``grade_1`` …; the candidates of other anchors have grade 0. ``info_nce`` knows positives and negatives alone. Its
    sibling ``wasserstein_lists`` compares the batch's rows as two sets.

    Args:
        temperature: τ.
        grade_temperature: τ_g. With m candidates of grade 0, a grade y has the share e^(y/τ_g) / (e^(y/τ_g) + m):
            with 64 anchors of lists of four, grades up to 3 need about 0.5.
    Returns: the entropy of T at best, which is above 0.
    Raises: RecipeError where nothing put grades into the table.
    Source: Cao et al. 2007, ICML, "Learning to rank: from pairwise approach to listwise approach" (ListNet).
    Deviations: the list is the whole row of the table, as in SyCL's released code; a temperature for the grades.
    """

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        log_p, log_t, live = self.log_rows(table)
        return -torch.where(live, log_t.exp() * log_p, 0.0).sum(dim=1).mean()
