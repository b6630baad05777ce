"""Heads: what lies between pooling and embedding. Some serve training only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Count, Part, Positive

Activation = Literal["identity", "tanh", "relu", "gelu", "silu", "sigmoid"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "identity": nn.Identity, "tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


class Head(Part, nn.Module, room="heads"):
    """A map from pooled vectors to embeddings.

    ``train_only`` heads take part in training and are left out of what is exported. ``keeps_dimensions`` says that
    value i of the output stands for value i of the input (a normalisation), so that nested dimensions may be trained.
    ``couples_rows`` says that an embedding depends on the other rows of the batch while training, ``per_view`` that it
    does so within its view and by chance: such a head is called as ``head(rows_of_a_view, generator)``, of at least
    ``least_rows`` (known once it is bound).
    """

    keeps_dimensions: bool = False
    couples_rows: bool = False
    per_view: bool = False
    least_rows: int = 1

    def __init__(self, *, train_only: bool) -> None:
        super().__init__()
        self.train_only = train_only

    def bind(self, width: int) -> int:
        """Make the modules for inputs of ``width``; gives the output width."""
        raise NotImplementedError

    def dense_layers(self) -> list[Dense] | None:
        """The head at inference as ``Dense`` ones, or None where it cannot be written so."""
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

    def dense_layers(self) -> list[Dense]:
        return [Dense.holding(self.linear.weight, self.linear.bias, "tanh")]


class Projector(Head):
    """``BN(W₂ relu(BN(W₁ x)))`` with ``W₁`` H→2H and ``W₂`` 2H→H without bias; the last BatchNorm is not affine.

    BatchNorm couples the rows of a batch while training; in evaluation it uses its running statistics.

    Args:
        train_only: left out at test time, as in the paper.

    Source: Chuang et al. 2022, NAACL (DiffCSE), section 4.1 and released code.
    Deviations: the weights start as PyTorch's linear layers do; in the released code from N(0, 0.02), a scale that the
        BatchNorms behind them take out.
    """

    couples_rows = True

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

    def dense_layers(self) -> list[Dense]:
        return [_folded(self.first, self.first_norm, "relu"), _folded(self.second, self.second_norm, "identity")]


@torch.no_grad()
def _folded(linear: nn.Linear, norm: nn.BatchNorm1d, activation: Activation) -> Dense:
    """With running statistics a BatchNorm is a scale and a shift, which fold into the linear map before it."""
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    slope = (variance + norm.eps).rsqrt() * (norm.weight.double() if norm.affine else 1)
    shift = (norm.bias.double() if norm.affine else 0) - mean * slope
    weight = linear.weight
    return Dense.holding((weight.double() * slope[:, None]).to(weight.dtype), shift.to(weight.dtype), activation)


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
        self, *, out_features: Count, activation: Activation = "tanh", bias: bool = True, residual: bool = False,
        train_only: bool = False,
    ) -> None:
        super().__init__(train_only=train_only)
        self.out_features, self.bias, self.is_residual = out_features, bias, residual
        self.activation = ACTIVATIONS[activation]()

    def bind(self, width: int) -> int:
        self.linear = nn.Linear(width, self.out_features, bias=self.bias)
        has_map = self.is_residual and width != self.out_features
        self.residual = nn.Linear(width, self.out_features, bias=False) if has_map else nn.Identity()
        return self.out_features

    def forward(self, pooled: Float[Tensor, "n d"]) -> Float[Tensor, "n o"]:
        out: Tensor = self.activation(self.linear(pooled))
        return out + self.residual(pooled) if self.is_residual else out

    @classmethod
    def holding(cls, weight: Tensor, bias: Tensor, activation: Activation) -> Dense:
        """Of given weights, (out, in) and (out,)."""
        head = cls(out_features=len(weight), activation=activation)
        with torch.device("meta"):  # draws no random numbers
            head.bind(weight.shape[1])
        head.linear.weight, head.linear.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        return head

    def dense_layers(self) -> list[Dense]:
        return [self]

    @property
    def activation_path(self) -> str:
        """As ``torch.nn.modules.activation.Tanh``."""
        return f"{type(self.activation).__module__}.{type(self.activation).__qualname__}"


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


class GroupWhitening(Head):
    """Whiten groups of dimensions, drawn anew for every view; it serves training only:

        X̂_g = (X_g - mean X_g) W_g,    W_g = (X_gᵀX_g / n + ε I)^(-1/2)      X_g centred in the covariance

    X_g (n × d/G) are the dimensions of group g of a view's rows, W_g the symmetric root (ZCA), a constant for the
    gradient. A view's dimensions are dealt to groups at random, so that two views of a text are whitened in different
    ways. ``groups`` = width standardises every dimension, ``groups`` = 1 whitens them all together.

    Args:
        groups: G, which divides the width; a batch must have more rows than a group has dimensions.
        eps: ε.
    Raises:
        RecipeError: the width is no multiple of ``groups``; a batch is too small.
    Source: Zhuo et al. 2023, ACL, "WhitenedCSE: Whitening-based contrastive learning of sentence embeddings", and
        released code (128 groups of 6; no gradient through W_g).
    Deviations: the released code deals dimensions once for thirds of a batch that mix the views; here once a view,
        which is the paper's idea. ε is ours.
    """

    couples_rows = per_view = True

    def __init__(self, *, groups: Count = 128, eps: Positive = 1e-5) -> None:
        super().__init__(train_only=True)
        self.groups, self.eps = groups, eps

    def bind(self, width: int) -> int:
        if width % self.groups:
            raise RecipeError(
                f"encoder.heads: group_whitening has groups = {self.groups}, which must divide the width {width}"
            )
        self.least_rows = width // self.groups + 1
        return width

    def forward(self, pooled: Float[Tensor, "n d"], generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        n, width = pooled.shape
        if n < self.least_rows:
            raise RecipeError(
                f"encoder.heads: group_whitening has groups of {width // self.groups} dimensions, which {n} examples "
                "cannot whiten; raise train.batch_size or groups"
            )
        order = torch.randperm(width, generator=generator).to(pooled.device)  # on the CPU: equal on every device
        with torch.autocast(device_type=pooled.device.type, enabled=False):
            rows = at_least_float32(pooled)[:, order].view(n, self.groups, -1).transpose(0, 1)
            rows = rows - rows.mean(dim=1, keepdim=True)
            constant = rows.detach()
            # NaN must come out as NaN, and a variance that rounds below zero counts as none
            values, vectors = torch.linalg.eigh((constant.transpose(1, 2) @ constant / n).nan_to_num())
            roots = vectors * (values.clamp(min=0) + self.eps).rsqrt()[:, None] @ vectors.transpose(1, 2)
            whitened: Tensor = (rows @ roots).transpose(0, 1).reshape(n, width)
        return whitened[:, torch.argsort(order)]


PARTS: dict[str, type[Head]] = {
    "mlp": MLP, "projector": Projector, "dense": Dense, "layer_norm": LayerNorm, "group_whitening": GroupWhitening,
}

HeadChoice = Head | str | Mapping[str, Any] | Sequence["Head | str | Mapping[str, Any]"]


def make_heads(choice: HeadChoice | None) -> list[Head]:
    """Heads, not bound yet, from a name, a table with ``use``, a head of the same settings, or a list of those; raises
    ``PartError`` for an unknown name or setting."""
    if choice is None:
        return []
    choices = [choice] if isinstance(choice, Head | str | Mapping) else choice
    return [cast(Head, Head._read(one)).fresh() for one in choices]


def refuse_coupling(encoder: object, what: str) -> None:
    """Refuse a head, or a BatchNorm of a head that does not say so, that makes an embedding depend on the other rows.

    Args:
        encoder: an ``nn.Module``.
        what: who sends which rows through the heads, for the message.

    Raises:
        RecipeError: there is one.
    """
    assert isinstance(encoder, nn.Module)
    if any(
        module.couples_rows if isinstance(module, Head) else isinstance(module, nn.modules.batchnorm._BatchNorm)
        for module in encoder.modules()
    ):
        raise RecipeError(
            f"{what} through the heads; leave out heads that couple the rows of a batch (BatchNorm, group_whitening)"
        )
