"""Attention pooling: the model learns which tokens count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sentemb import Pooling
from sentemb.parts import Count


class Attention(Pooling):
    """A weighted mean of the token vectors whose weights are learned.

        a = softmax(w₂ tanh(W₁ H)) over the text's tokens,  pooled = Σ_t a_t h_t

    The weights are trained, saved and loaded with the encoder's.

    Args:
        width: rows of W₁.

    Source: Lin et al. 2017, ICLR, "A structured self-attentive sentence embedding", equations 5 and 6 with r = 1.
    Deviations: starts as the plain mean (w₂ = 0), so that a trained checkpoint is not disturbed.
    """

    def __init__(self, *, width: Count = 64) -> None:
        super().__init__()
        self.width = width

    def bind(self, width: int, layers: int) -> int:
        """Make W₁ and w₂."""
        self.inner = nn.Linear(width, self.width, bias=False)
        self.outer = nn.Linear(self.width, 1, bias=False)
        nn.init.zeros_(self.outer.weight)
        return width

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Pool (b, t, d) where ``mask`` (b, t) is 1."""
        scores = self.outer(torch.tanh(self.inner(hidden))).squeeze(-1)
        weights = scores.masked_fill(mask == 0, float("-inf")).softmax(dim=1)
        return torch.einsum("bt,btd->bd", weights, hidden)
