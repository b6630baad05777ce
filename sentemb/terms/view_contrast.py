"""Contrast of the anchors with each of several views."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import pairwise
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature
from sentemb.views.view import ViewNames


class ViewContrast(Term):
    """One softmax a view, which reads the views, not the edited table:

        L = -Σ_{v ∈ of} 1/n Σ_i log( exp(s(h_i, v_i) / τ) / Σ_j exp(s(h_i, v_j) / τ) )

    h are the anchors, v the rows of a view, s the table's similarity. Differs from ``multi_view`` in that only anchors
    look at the views, and from further positives in the table (``given``) in that views do not compete.
    With ``of = ["positive"]`` it is ``info_nce`` on an unedited table.

    Args:
        of: the views.
        temperature: τ.
    Returns: 0 for one example alone.
    Source: Zhuo et al. 2023, ACL, "WhitenedCSE", its released code (two positives, a softmax each).
    Deviations: none.
    """

    def __init__(self, *, of: ViewNames = ("positive",), temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.of, self.temperature = of, temperature
        self.needs = frozenset(f"view:{name}" for name in of)

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        anchor = batch.views["anchor"].embedding
        own = torch.arange(len(anchor), device=anchor.device)
        logits = (pairwise(anchor, batch.views[name].embedding, table.similarity) for name in self.of)
        losses = [F.cross_entropy(each / self.temperature, own) for each in logits]
        return torch.stack(losses).sum()
