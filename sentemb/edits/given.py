"""Hard negatives that the data gives."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch

from sentemb.edits.edit import Edit
from sentemb.errors import RecipeError
from sentemb.maths.table import UNKNOWN, add_candidates, extra_rows
from sentemb.parts import Positive
from sentemb.types import Batch, PairScores

_NEGATIVE = re.compile(r"negative(?:_(\d+))?")


class Given(Edit):
    """Append every example's hard negatives as columns that all anchors see.

    For each view ``negative_1``, ``negative_2``, … (also a bare ``negative``), by number, n columns; the anchor's
    own one gets the log-weight ``log α``:

        log_weight[i, n + j] = 1[i = j] · log α

    A hard negative belongs to its example without meaning the same, so it carries no example id and
    ``false_negative`` keeps it (unless its text says otherwise); a negative that a view drew from another example
    keeps that example's id.

    Args:
        weight: α, how many times the anchor's own hard negative counts; 1 as in SimCSE's table 5.
    Returns:
        The table with n more columns a view.
    Raises:
        RecipeError: no view is named ``negative`` or ``negative_N``.
    Source: Gao, Yao & Chen 2021, EMNLP, "SimCSE", equation 5 and section 4.2 (α^1[i=j]).
    Deviations: any number of hard negatives an example instead of one; none for one.
    """

    needs = frozenset({"view:negative_1"})

    def __init__(self, *, weight: Positive = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        names = negative_views(batch.views)
        if not names:
            raise RecipeError(
                "edit given: no view is named negative or negative_1, …; the views are "
                f"{', '.join(sorted(batch.views))}. Give the data a negative column, or drop the edit"
            )
        n = len(table.anchor)
        for name in names:
            view = batch.views[name]
            ids = torch.where(view.ids == table.anchor.ids, torch.full_like(view.ids, UNKNOWN), view.ids)
            rows = extra_rows(view.embedding, table.candidate, ids=ids, text=view.text)
            own = torch.eye(n, dtype=table.log_weight.dtype, device=table.log_weight.device) * math.log(self.weight)
            table = add_candidates(table, rows, log_weight=own)
        return table


def negative_views(views: Mapping[str, object]) -> list[str]:
    """The names ``negative``, ``negative_1``, … among ``views``, by number."""
    matches = {name: match for name in views if (match := _NEGATIVE.fullmatch(name))}
    return sorted(matches, key=lambda name: int(matches[name].group(1) or 0))
