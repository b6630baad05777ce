"""What every pooling keeps to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.parts import Part, room


class Pooling(Part, nn.Module, room="poolings"):
    """Token vectors to one vector a text; no text sees another.

    A subclass has a keyword-only constructor that keeps settings and makes nothing, ``bind`` for layers with weights
    (they are trained, saved and loaded like the backbone's), and ``forward``. ``hidden`` is float32 where a pooling
    has weights, else the backbone's format.

    Attributes:
        needs_layers: whether ``pool_layers`` reads every layer, not the last alone.
    """

    needs_layers: bool = False

    @classmethod
    def _read(cls, value: Any) -> Part:
        if isinstance(value, str) and "+" in value:
            return room("poolings").make({"use": "joined", "poolings": value.split("+")})
        return super()._read(value)

    def bind(self, width: int, layers: int) -> int:
        """Make what depends on the backbone: the width of its token vectors and its number of layers.

        Returns: the width of the pooled vectors.
        """
        return width

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b o"]:
        """Pool the last layer's vectors where ``mask`` is 1 (every row has such a token)."""
        raise NotImplementedError

    def pool_layers(
        self, layers: Sequence[Float[Tensor, "b t d"]], mask: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b o"]:
        """Pool all layers' vectors, the embeddings' first; the last alone where ``needs_layers`` is False."""
        pooled: Tensor = self(layers[-1], mask)
        return pooled


def pool(
    pooling: Pooling, layers: Sequence[Float[Tensor, "b t d"]], mask: Int[Tensor, "b t"]
) -> Float[Tensor, "b o"]:
    """``pooling.pool_layers``, in the format of the pooling's own weights where it has some."""
    weight = next(pooling.parameters(), None)
    if weight is not None:
        layers = [layer.to(weight.dtype) for layer in layers]
    return pooling.pool_layers(layers, mask)
