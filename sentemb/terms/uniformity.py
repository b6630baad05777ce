"""Uniformity: embeddings spread over the sphere. The second half of align + uniform."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import pairwise
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores
from sentemb.views.view import ViewNames


class Uniformity(Term):
    """Logarithm of the mean Gaussian potential between the embeddings of a view.

        L = mean over views of log( 2 / (n (n-1)) Σ_{i<j} exp(-t ‖u_i - u_j‖²) ),  ‖u_i - u_j‖² = 2 - 2 u_i·u_j

    Reads the views themselves, not the table: anchors are held apart from anchors, positives from positives, and
    the table's edits do not matter. Its sibling is ``alignment``.

    Args:
        sharpness: t; 2 in the paper.
        of: the views; anchor and positive by default.
    Returns: 0 where there is only one example.
    Source: Wang & Isola 2020, ICML, section 4.2 (L_uniform, over pairs of different examples).
    Deviations: none.
    """

    def __init__(self, *, sharpness: Positive = 2.0, of: ViewNames = ("anchor", "positive")) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.of = of
        self.needs = frozenset(f"view:{name}" for name in self.of)

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        return torch.stack([self._of_view(batch.views[name].embedding) for name in self.of]).mean()

    def _of_view(self, embedding: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        n = embedding.shape[0]
        if n == 1:
            return F.normalize(embedding, dim=-1).sum() * 0.0
        row, column = torch.triu_indices(n, n, offset=1, device=embedding.device)
        squared = 2 - 2 * pairwise(embedding, embedding, "cosine")[row, column]
        return torch.logsumexp(-self.sharpness * squared, dim=0) - math.log(len(row))
