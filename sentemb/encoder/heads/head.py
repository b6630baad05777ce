"""What every head keeps to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sentemb.parts import Part


@dataclass(frozen=True, kw_only=True)
class DenseLayer:
    """A head's layer as sentence-transformers' ``Dense`` holds it: ``activation(weight · x + bias)``."""

    weight: Tensor  # (out, in)
    bias: Tensor | None
    activation: str  # class path, e.g. "torch.nn.modules.activation.Tanh"
    residual: bool = False
    residual_weight: Tensor | None = None  # (out, in), where the widths differ


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
