"""SimCSE's head."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.heads.head import DenseLayer, Head


class MLP(Head):
    """``tanh(W x + b)``, as wide as its input.

    Args:
        train_only: left out at test time (unsupervised SimCSE) or kept (supervised SimCSE).

    Source: Gao, Yao & Chen 2021, EMNLP, section 6.3 and table 7.
    Deviations: none; as in the released code the weights start from N(0, 0.02) with zero bias (BERT's own
    initialisation), never from a pre-trained pooler.
    """

    def __init__(self, *, train_only: bool = True) -> None:
        super().__init__(train_only=train_only)

    def bind(self, width: int) -> int:
        self.linear = nn.Linear(width, width)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        return width

    def forward(self, pooled: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        out: Tensor = self.linear(pooled).tanh()
        return out

    def dense_layers(self) -> list[DenseLayer]:
        return [DenseLayer(weight=self.linear.weight, bias=self.linear.bias,
                           activation="torch.nn.modules.activation.Tanh")]
