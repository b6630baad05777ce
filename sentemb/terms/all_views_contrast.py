"""Every row of every view is an anchor, and every other row of its class a positive."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import contrasted_names
from sentemb.terms.term import Term
from sentemb.types import UNKNOWN, Batch, PairScores, Rows, Temperature
from sentemb.views.view import ViewNames


class AllViewsContrast(Term):
    """Supervised contrast among all N = V n rows of V views, which reads the views, not the table. With unit rows u,

        L = -1/N Σ_a 1/|P(a)| Σ_{p ∈ P(a)} log( exp(u_a · u_p / τ) / Σ_{b ≠ a} exp(u_a · u_b / τ) )

    P(a) are all other rows of a's class, the other views of a's own example included. Without classes they are those
    views alone; with two views that is NT-Xent. Differs from ``supervised_contrast`` in that the rows of every view are
    anchors and candidates, and from ``multi_view`` in its classes and in that all positives of an anchor stand in the
    denominator of each. Holds N² similarities.

    Args:
        temperature: τ; 0.05 in the source.
        same_label: whether texts of one class are positives; a text of unknown class (-1) has its own views only.
        of: the views; by default anchor, positive and every positive_2, …
    Returns: 0 for two views of one example.
    Raises:
        RecipeError: fewer than two views, or no labels.
    Source: Sedghamiz et al. 2021, Findings of EMNLP, "SupCL-Seq", released code; Khosla et al. 2020, NeurIPS, eq. 2.
    Deviations: the released code multiplies the loss by τ / 0.07.
    """

    needs = frozenset({"labels"})

    def __init__(
        self, *, temperature: Temperature = 0.05, same_label: bool = True,
        of: Annotated[ViewNames, MinLen(2)] | None = None,
    ) -> None:
        super().__init__()
        self.temperature, self.same_label, self.of = temperature, same_label, of
        self.needs = frozenset({*(f"view:{name}" for name in of or ()), *(["labels"] if same_label else [])})

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        names = self.of or contrasted_names(batch)
        if len(names) < 2:
            raise RecipeError(f"{self.name} contrasts views of an example; there is only {', '.join(names) or 'none'}")
        unit = F.normalize(at_least_float32(torch.cat([batch.views[name].embedding for name in names])), dim=1)
        with torch.autocast(device_type=unit.device.type, enabled=False):
            logits = unit @ unit.T / self.temperature
        own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        positive = self._same(batch.views["anchor"]).repeat(len(names), len(names)) & ~own
        normaliser = logits.masked_fill(own, -torch.inf).logsumexp(dim=1)
        attraction = (positive * logits).sum(dim=1) / positive.sum(dim=1)
        return (normaliser - attraction).mean()

    def _same(self, anchor: Rows) -> Bool[Tensor, "n n"]:
        """Whether two examples are one, or of one class."""
        same = torch.eye(len(anchor), dtype=torch.bool, device=anchor.ids.device)
        if not self.same_label:
            return same
        if anchor.label is None:
            raise RecipeError(f"{self.name}: the data have no label column; add one, or set same_label = false")
        return same | ((anchor.label[:, None] == anchor.label) & (anchor.label != UNKNOWN)[:, None])
