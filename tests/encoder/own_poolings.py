"""A pooling from outside, as a user writes it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.encoder.poolings import Pooling


class AttentionPooling(Pooling):
    """``Σ softmax(w · h)ᵢ hᵢ``: a mean whose weights are learned.

    Args:
        heads: how many of them, side by side.
    """

    def __init__(self, *, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads

    def bind(self, width: int, layers: int) -> int:
        self.score = nn.Linear(width, self.heads)
        return width * self.heads

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b o"]:
        weights = self.score(hidden).masked_fill(mask[..., None] == 0, -torch.inf).softmax(dim=1)
        return torch.einsum("bth,btd->bhd", weights, hidden).flatten(1)
