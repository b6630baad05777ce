"""Layer normalisation behind the pooling, as some published checkpoints have it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.heads.head import Head


class LayerNorm(Head):
    """``(x - mean) / sqrt(var + 1e-5) · γ + β``: sentence-transformers' LayerNorm module.

    Args:
        train_only: left out at test time.
    """

    keeps_dimensions = True

    def __init__(self, *, train_only: bool = False) -> None:
        super().__init__(train_only=train_only)

    def bind(self, width: int) -> int:
        self.norm = nn.LayerNorm(width)
        return width

    def forward(self, pooled: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        out: Tensor = self.norm(pooled)
        return out
