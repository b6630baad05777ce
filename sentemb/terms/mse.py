"""Distillation: embeddings become those of another encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.companions.companion import find_companion
from sentemb.companions.reference import Reference
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import mean_over
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, PairScores
from sentemb.views.view import ViewNames


class MSE(Term):
    """Squared error of the embeddings from a teacher's:

        L = 1/V Σ_v 1/n Σ_i ‖ f(x_i^v) - t_i^v ‖²

    over the V views of ``of``; t_i^v is the unit vector that a ``reference`` has of the same text, or of the text of
    the view ``toward``: a translation, toward the vector of its source, learns to lie where that lies. f is made a unit
    vector first where the recipe compares by cosine, for which lengths mean nothing (then ‖f - t‖² = 2 - 2 cos). Where
    the teacher is wider or narrower than the student, a linear map W that is learned and left behind stands before f.
    ``distill``, its sibling, copies the teacher's similarities and leaves the space free.

    Args:
        companion: name of the ``reference`` that teaches.
        of: the views that learn.
        toward: the view whose texts the teacher reads; by default every view's own.
    Returns: texts that the reference does not know are not counted; 0 where it knows none.
    Source: Reimers & Gurevych 2020, EMNLP, "Making monolingual sentence embeddings multilingual using knowledge
        distillation", equation 1 (with ``toward = "anchor"``).
    Deviations: the paper's teacher is not of unit length, and its student is of the teacher's width. W, and the mean
        over the views in place of their sum, are ours.
    """

    def __init__(
        self, *, companion: str = "reference", of: ViewNames = ("anchor", "positive"), toward: str | None = None
    ) -> None:
        super().__init__()
        self.companion, self.of, self.toward = companion, of, toward
        views = {*of, *([] if toward is None else [toward])}
        self.needs = frozenset({f"companion:{companion}", *(f"view:{name}" for name in views)})
        self.map: nn.Module = nn.Identity()

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Nested dimensions, of which the teacher has none."""
        train = recipe.get("train")
        if train is None or not train.nested_dims:
            return []
        return ["compares whole embeddings with the teacher's; leave out train.nested_dims, or use distill, which "
                "compares similarities"]

    def bind(self, build: Build) -> None:
        """Make the map where the widths differ."""
        reference = find_companion(build.companions, self.companion, Reference, self.name)
        if reference.dimensions != build.width:
            self.map = nn.Linear(build.width, reference.dimensions, bias=False)

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        reference = find_companion(batch.companions, self.companion, Reference, self.name)
        losses = []
        for name in self.of:
            view = self.toward or name
            target, is_known = reference.embeddings(view, batch.views[view], batch.outputs)
            own = at_least_float32(self.map(batch.views[name].embedding))
            own = F.normalize(own, dim=1) if table.similarity == "cosine" else own
            losses.append(mean_over((own - target.to(own.dtype)).square().sum(dim=1), is_known))
        return torch.stack(losses).mean()
