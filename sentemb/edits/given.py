"""Further positives and hard negatives that the data or the views give."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch

from sentemb.edits.edit import Edit
from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates, extra_rows
from sentemb.parts import Positive
from sentemb.types import UNKNOWN, Batch, PairScores

_FURTHER = re.compile(r"(negative|positive)(?:_(\d+))?")


class Given(Edit):
    """Append every example's further positives and hard negatives as columns that all anchors see.

    For each view ``positive_2``, …, then ``negative_1``, … (also a bare ``negative``), by number, n columns. A further
    positive is one for its own anchor and a negative for the others, as every in-batch positive; of a hard negative,
    the anchor's own one gets the log-weight ``log α``:

        positive[i, k n + j] = 1[i = j]                 of positive_(k + 1)
        log_weight[i, … + j] = 1[i = j] · log α         of a hard negative

    A hard negative belongs to its example without meaning the same, so it carries no example id and
    ``false_negative`` keeps it (unless its text says otherwise); a negative that a view drew from another example
    keeps that example's id. Where the data have grades, the table gets them: of an anchor's own positives ``grade_0``,
    of its own ``negative_k`` ``grade_k``, and 0 for every other candidate.

    Args:
        weight: α, how many times the anchor's own hard negative counts; 1 as in SimCSE's table 5.
    Returns:
        The table with n more columns a view.
    Raises:
        RecipeError: no view is a further positive or a negative.
    Source: Gao, Yao & Chen 2021, EMNLP, "SimCSE", equation 5 and section 4.2 (α^1[i=j]).
    Deviations: any number of positives and hard negatives an example instead of one; none for one. Grades are ours.
    """

    needs = frozenset({"view:negative_1|positive_2"})

    def __init__(self, *, weight: Positive = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        positives, negatives = further_views(batch.views, "positive"), further_views(batch.views, "negative")
        if not positives and not negatives:
            raise RecipeError(
                "edit given: no view is named positive_2, … or negative_1, …; the views are "
                f"{', '.join(sorted(batch.views))}. Give the data such a column, or drop the edit"
            )
        n = len(table.anchor)
        own = torch.eye(n, dtype=torch.bool, device=table.sim.device)
        grades = {name: torch.diag(grade) for name, grade in batch.grades.items()}
        if grades:
            grade = torch.zeros_like(table.sim)
            grade[:, :n] = grades["positive"].to(grade)
            table = replace(table, grade=grade)
        for name in positives:
            table = add_candidates(table, batch.views[name], positive=own, grade=grades.get("positive"))
        for name in negatives:
            view = batch.views[name]
            ids = torch.where(view.ids == table.anchor.ids, torch.full_like(view.ids, UNKNOWN), view.ids)
            rows = extra_rows(view.embedding, table.candidate, ids=ids, text=view.text)
            weight = own.to(table.log_weight.dtype) * math.log(self.weight)
            table = add_candidates(table, rows, log_weight=weight, grade=grades.get(name))
        return table


def further_views(views: Mapping[str, object], kind: str) -> list[str]:
    """The names ``negative``, ``negative_1``, … (or ``positive_2``, …) among ``views``, by number."""
    matches = {name: match for name in views if (match := _FURTHER.fullmatch(name)) and match[1] == kind}
    matches.pop("positive", None)  # it stands in the table already
    return sorted(matches, key=lambda name: int(matches[name].group(2) or 0))
