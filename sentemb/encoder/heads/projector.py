"""DiffCSE's head."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.heads.head import DenseLayer, Head


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
            DenseLayer(weight=first_weight, bias=first_bias, activation="torch.nn.modules.activation.ReLU"),
            DenseLayer(weight=second_weight, bias=second_bias, activation="torch.nn.modules.linear.Identity"),
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
