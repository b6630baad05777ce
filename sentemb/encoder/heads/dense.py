"""A linear map to any width."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.heads.head import DenseLayer, Head
from sentemb.parts import Count

ACTIVATIONS: dict[str, tuple[type[nn.Module], str]] = {
    "identity": (nn.Identity, "torch.nn.modules.linear.Identity"),
    "tanh": (nn.Tanh, "torch.nn.modules.activation.Tanh"),
    "relu": (nn.ReLU, "torch.nn.modules.activation.ReLU"),
    "gelu": (nn.GELU, "torch.nn.modules.activation.GELU"),
    "silu": (nn.SiLU, "torch.nn.modules.activation.SiLU"),
    "sigmoid": (nn.Sigmoid, "torch.nn.modules.activation.Sigmoid"),
}


class Dense(Head):
    """``activation(W x + b)``, plus the (projected) input where ``residual``: sentence-transformers' Dense.

    Args:
        out_features: width of the embeddings.
        activation: one of identity, tanh, relu, gelu, silu, sigmoid.
        bias: whether there is b.
        residual: adds the input, through a linear map without bias where the widths differ.
        train_only: left out at test time.
    """

    def __init__(
        self, *, out_features: Count,
        activation: Literal["identity", "tanh", "relu", "gelu", "silu", "sigmoid"] = "tanh",
        bias: bool = True, residual: bool = False, train_only: bool = False,
    ) -> None:
        super().__init__(train_only=train_only)
        self.out_features, self.bias, self.is_residual = out_features, bias, residual
        self.activation_name = activation

    def bind(self, width: int) -> int:
        self.linear = nn.Linear(width, self.out_features, bias=self.bias)
        self.activation = ACTIVATIONS[self.activation_name][0]()
        self.residual: nn.Module | None = None
        if self.is_residual:
            same = width == self.out_features
            self.residual = nn.Identity() if same else nn.Linear(width, self.out_features, bias=False)
        return self.out_features

    def forward(self, pooled: Float[Tensor, "n d"]) -> Float[Tensor, "n o"]:
        out: Tensor = self.activation(self.linear(pooled))
        return out if self.residual is None else out + self.residual(pooled)

    def dense_layers(self) -> list[DenseLayer]:
        extra = self.residual.weight if isinstance(self.residual, nn.Linear) else None
        path = ACTIVATIONS[self.activation_name][1]
        return [DenseLayer(weight=self.linear.weight, bias=self.linear.bias, activation=path, residual=self.is_residual,
                           residual_weight=extra)]
