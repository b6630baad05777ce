"""Poolings made of other poolings: several side by side, and means over layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.encoder.poolings.pooling import Pooling
from sentemb.encoder.poolings.tokens import Mean
from sentemb.errors import ModelError


class Joined(Pooling):
    """Several poolings of the last layer side by side; written ``cls+mean``.

    Args:
        poolings: in the order of their values.
    """

    def __init__(self, *, poolings: tuple[Pooling, ...]) -> None:
        super().__init__()
        if any(part.needs_layers for part in poolings):
            raise ValueError("joins poolings of the last layer only")
        self.poolings = nn.ModuleList(poolings)

    @property
    def parts(self) -> list[Pooling]:
        """The poolings."""
        return [part for part in self.poolings if isinstance(part, Pooling)]

    def bind(self, width: int, layers: int) -> int:
        return sum(part.bind(width, layers) for part in self.parts)

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b o"]:
        return torch.cat([part(hidden, mask) for part in self.parts], dim=-1)


class LayerMean(Pooling):
    """A pooling of the weighted mean of all layers: sentence-transformers' WeightedLayerPooling.

    Args:
        weights: one a layer, the embeddings' first; they need not sum to one.
        pooling: of the mean.
    """

    needs_layers = True

    def __init__(self, *, weights: tuple[float, ...] = (), pooling: Pooling | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.pooling = pooling or Mean()

    def bind(self, width: int, layers: int) -> int:
        if len(self.weights) != layers + 1:
            raise ModelError(f"weights for {len(self.weights)} hidden layers; the backbone has {layers + 1} with its "
                             "embeddings")
        return self.pooling.bind(width, layers)

    def pool_layers(self, layers: Sequence[Float[Tensor, "b t d"]], mask: Int[Tensor, "b t"]) -> Tensor:
        weighted = [(weight, layer) for weight, layer in zip(self.weights, layers, strict=True) if weight]
        total = sum(weight for weight, _ in weighted)
        mean = torch.stack([layer * (weight / total) for weight, layer in weighted]).sum(0)
        pooled: Tensor = self.pooling(mean, mask)
        return pooled


class FirstLastMean(LayerMean):
    """Mean over tokens of (embedding output + last layer) / 2.

    Source: Gao, Yao & Chen 2021 (SimCSE), released code ``avg_first_last``.
    Deviations: none; other authors count the first transformer layer as "first", SimCSE the embedding output.
    """

    def __init__(self) -> None:
        super().__init__()

    def bind(self, width: int, layers: int) -> int:
        self.weights = (1.0, *(layers - 1) * (0.0,), 1.0)
        return super().bind(width, layers)


class Last2Mean(LayerMean):
    """Mean over tokens of the mean of the last two layers.

    Source: Gao, Yao & Chen 2021 (SimCSE), released code ``avg_top2``.
    Deviations: none.
    """

    def __init__(self) -> None:
        super().__init__()

    def bind(self, width: int, layers: int) -> int:
        self.weights = (*(layers - 1) * (0.0,), 1.0, 1.0)
        return super().bind(width, layers)
