"""Heads: what lies between pooling and embedding. Some serve training only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.parts import Count, Part


@dataclass(frozen=True, kw_only=True)
class DenseLayer:
    """A head's layer as sentence-transformers' ``Dense`` holds it: ``activation(weight · x + bias)``."""

    weight: Tensor  # (out, in)
    bias: Tensor | None
    activation: type[nn.Module]
    residual: bool = False
    residual_weight: Tensor | None = None  # (out, in), where the widths differ

    @property
    def activation_path(self) -> str:
        """As ``torch.nn.modules.activation.Tanh``."""
        return f"{self.activation.__module__}.{self.activation.__qualname__}"


class Head(Part, nn.Module, room="heads"):
    """A map from pooled vectors to embeddings. Keyword-only, light constructors; ``bind`` makes the modules.

    ``train_only`` heads take part in training and are left out of what is exported.
    ``keeps_dimensions`` says that value i of the output stands for value i of the input (a normalisation); leading
    values of a ``train_only`` head's output then say something about leading values of what is exported.
    """

    keeps_dimensions: bool = False

    def __init__(self, *, train_only: bool) -> None:
        super().__init__()
        self.train_only = train_only

    def bind(self, width: int) -> int:
        """Make the modules for inputs of ``width``; gives the output width."""
        raise NotImplementedError

    def dense_layers(self) -> list[DenseLayer] | None:
        """The head at inference as dense layers, or None where it cannot be written so."""
        return None


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
        return [DenseLayer(weight=self.linear.weight, bias=self.linear.bias, activation=nn.Tanh)]


class Projector(Head):
    """``BN(W₂ relu(BN(W₁ x)))`` with ``W₁`` H→2H and ``W₂`` 2H→H without bias; the last BatchNorm is not affine.

    BatchNorm couples the rows of a batch while training; in evaluation it uses its running statistics.

    Args:
        train_only: left out at test time, as in the paper.

    Source: Chuang et al. 2022, NAACL (DiffCSE), section 4.1 and released code.
    Deviations: none.
    """

    def __init__(self, *, train_only: bool = True) -> None:
        super().__init__(train_only=train_only)

    def bind(self, width: int) -> int:
        self.first = nn.Linear(width, 2 * width, bias=False)
        self.first_norm = nn.BatchNorm1d(2 * width)
        self.second = nn.Linear(2 * width, width, bias=False)
        self.second_norm = nn.BatchNorm1d(width, affine=False)
        return width

    def forward(self, pooled: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        inner = torch.relu(self.first_norm(self.first(pooled)))
        out: Tensor = self.second_norm(self.second(inner))
        return out

    def dense_layers(self) -> list[DenseLayer]:
        """With running statistics a BatchNorm is a scale and a shift, so both fold into the linear maps."""
        first_weight, first_bias = _fold(self.first.weight, self.first_norm)
        second_weight, second_bias = _fold(self.second.weight, self.second_norm)
        return [
            DenseLayer(weight=first_weight, bias=first_bias, activation=nn.ReLU),
            DenseLayer(weight=second_weight, bias=second_bias, activation=nn.Identity),
        ]


@torch.no_grad()
def _fold(weight: Float[Tensor, "o i"], norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    slope = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        slope = slope * norm.weight.double()
    shift = -norm.running_mean.double() * slope
    if norm.affine:
        shift = shift + norm.bias.double()
    return (weight.double() * slope[:, None]).to(weight.dtype), shift.to(weight.dtype)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity, "tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
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
        self.activation = ACTIVATIONS[self.activation_name]()
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
        return [DenseLayer(weight=self.linear.weight, bias=self.linear.bias, activation=type(self.activation),
                           residual=self.is_residual, residual_weight=extra)]


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


PARTS: dict[str, type[Head]] = {
    "mlp": MLP,
    "projector": Projector,
    "dense": Dense,
    "layer_norm": LayerNorm,
}
