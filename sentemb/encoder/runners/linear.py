"""Linear maps prepared once for inference: dtype, several maps in one, weights in the kernel's own layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.runners.families import Unsupported

USUAL_ROWS = 2048  # oneDNN is told a usual number of rows when it lays out weights; any number works afterwards
# activation -> oneDNN's name and algorithm
ONEDNN_ACTIVATIONS: dict[str | None, tuple[str, str]] = {
    None: ("none", ""), "gelu": ("gelu", "none"), "relu": ("relu", ""),
}


class FastLinear:
    """``activation(W x + b)``.

    On a CPU with oneDNN the weights are reordered once (PyTorch reorders them in every call) and bias, activation
    and residual are added while a tile is in the cache.

    Args:
        weight: W; its dtype is that of input and output as well.
        bias: b, or None for none.
        activation: ``gelu`` (exact) or ``relu``; None for none.
    """

    def __init__(
        self, weight: Float[Tensor, "o d"], bias: Float[Tensor, " o"] | None = None, activation: str | None = None
    ) -> None:
        self.weight, self.bias, self.activation = weight, bias, activation
        self._packed: Any = None
        if self.weight.device.type == "cpu" and has_onednn_linear(weight.dtype):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, USUAL_ROWS)
            self.weight = self._packed  # the plain copy is not needed any more

    @classmethod
    def joining(cls, parts: Sequence[nn.Module], dtype: torch.dtype, activation: str | None = None) -> FastLinear:
        """One or several ``nn.Linear`` of the same input side by side.

        Raises:
            Unsupported: a part is something else.
        """
        weights, biases = zip(*(_weights(part) for part in parts), strict=True)
        bias: Tensor | None = None
        if any(bias is not None for bias in biases):
            filled = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
            bias = torch.cat(filled).to(dtype)
        return cls(torch.cat(weights).to(dtype), bias, activation)

    def plain_weight(self) -> Float[Tensor, "o d"]:
        """W in PyTorch's own layout."""
        return self.weight.to_dense() if self._packed is not None else self.weight

    def __call__(self, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens o"]:
        if self._packed is not None:
            name, algorithm = ONEDNN_ACTIVATIONS[self.activation]
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, name, [], algorithm)
            return out
        out = F.linear(x, self.weight, self.bias)
        if self.activation == "gelu":
            return F.gelu(out)
        return F.relu(out) if self.activation == "relu" else out

    def plus(self, x: Float[Tensor, "tokens d"], residual: Float[Tensor, "tokens o"]) -> Float[Tensor, "tokens o"]:
        """``residual + W x + b``."""
        if self._packed is not None:
            out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._packed, self.bias, "add")
            return out
        return F.linear(x, self.weight, self.bias).add_(residual)


def _weights(part: nn.Module) -> tuple[Tensor, Tensor | None]:
    # an adapter, a quantised layer or a hook changes what a layer computes
    if type(part) is not nn.Linear or part._forward_hooks or part._forward_pre_hooks:
        raise Unsupported(f"a layer is {type(part).__name__}, not a plain Linear")
    return part.weight.detach(), None if part.bias is None else part.bias.detach()


@cache
def has_onednn_linear(dtype: torch.dtype) -> bool:
    """Whether this PyTorch multiplies prepacked weights of ``dtype`` on the CPU (tried once)."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        x, weight, bias = (torch.ones(size, dtype=dtype) for size in ((2, 16), (16, 16), (16,)))
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        first = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "gelu", [], "none")
        second = torch.ops.mkldnn._linear_pointwise.binary(x, first, packed, bias, "add")
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((second == 34).all())
