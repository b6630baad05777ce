"""The lean forms: packed rows through BERT's family or ModernBERT, with weights prepared for a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.runners.attention import Bias, Map, Packed, attend, rotary_angles, rotated
from sentemb.encoder.runners.decoders import DecoderEncoder
from sentemb.encoder.runners.families import (
    DECODERS,
    Weights,
    kind_of,
    known,
    plain_weights,
    position_table,
    stack_of,
)

USUAL_ROWS = 2048  # oneDNN is told a usual number of rows when it lays out weights; any number works afterwards
# activation -> oneDNN's name and algorithm
ONEDNN_ACTIVATIONS: dict[str | None, tuple[str, str]] = {
    None: ("none", ""), "gelu": ("gelu", "none"), "relu": ("relu", ""),
}


def lean_form(backbone: nn.Module, dtype: torch.dtype) -> PostNormEncoder | ModernBertEncoder | DecoderEncoder:
    """The lean form of a backbone; raises ``Unsupported`` where there is none."""
    weights, kind = plain_weights(backbone), kind_of(backbone)
    if kind in DECODERS:
        return DecoderEncoder(backbone, weights, dtype)
    return (ModernBertEncoder if kind == "modernbert" else PostNormEncoder)(backbone, weights, dtype)


# ------------------------------------------------------------------------------------------------- pieces
class FastLinear:
    """``activation(W x + b)``, in the dtype of W.

    With oneDNN the weights are reordered once (PyTorch reorders them in every call) and bias, activation and residual
    are added while a tile is in the cache.
    """

    def __init__(
        self, weight: Float[Tensor, "o d"], bias: Float[Tensor, " o"] | None = None, activation: str | None = None
    ) -> None:
        self.weight, self.bias, self.activation = weight, bias, activation
        self._packed: Any = None
        if has_onednn_linear(weight.dtype):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, USUAL_ROWS)
            self.weight = self._packed  # the plain copy is not needed any more

    @classmethod
    def joining(cls, weights: Weights, *names: str, dtype: torch.dtype, activation: str | None = None) -> FastLinear:
        """One or several linear layers of the same input side by side."""
        parts = [weights[f"{name}.weight"] for name in names]
        biases = [weights.get(f"{name}.bias") for name in names]
        bias: Tensor | None = None
        if any(bias is not None for bias in biases):
            filled = [w.new_zeros(len(w)) if b is None else b for w, b in zip(parts, biases, strict=True)]
            bias = torch.cat(filled).detach().to(dtype)
        return cls(torch.cat(parts).detach().to(dtype), bias, activation)

    def plain_weight(self) -> Float[Tensor, "o d"]:
        """W in PyTorch's own layout."""
        return self.weight.to_dense() if self._packed is not None else self.weight

    def __call__(self, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens o"]:
        if self._packed is not None:
            name, algorithm = ONEDNN_ACTIVATIONS[self.activation]
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, name, [], algorithm)
            return out
        return activated(F.linear(x, self.weight, self.bias), self.activation)

    def plus(self, x: Float[Tensor, "tokens d"], residual: Float[Tensor, "tokens o"]) -> Float[Tensor, "tokens o"]:
        """``residual + W x + b``."""
        if self._packed is not None:
            out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._packed, self.bias, "add")
            return out
        return F.linear(x, self.weight, self.bias).add_(residual)


def activated(x: Tensor, activation: str | None) -> Tensor:
    """``gelu``, ``relu`` or nothing."""
    return F.gelu(x) if activation == "gelu" else F.relu(x) if activation else x


@cache
def has_onednn_linear(dtype: torch.dtype) -> bool:
    """Whether this PyTorch multiplies prepacked weights of ``dtype`` on the CPU (tried once)."""
    try:
        x, weight, bias = (torch.ones(size, dtype=dtype) for size in ((2, 16), (16, 16), (16,)))
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        first = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "gelu", [], "none")
        second = torch.ops.mkldnn._linear_pointwise.binary(x, first, packed, bias, "add")
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((second == 34).all())


def _norm(weights: Weights, name: str, eps: float, dtype: torch.dtype) -> Map:
    weight, bias = weights[f"{name}.weight"].detach().to(dtype), weights.get(f"{name}.bias")
    return partial(F.layer_norm, normalized_shape=weight.shape, weight=weight, eps=eps,
                   bias=None if bias is None else bias.detach().to(dtype))


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """``x + down(activation(up(x)))``."""

    up: FastLinear
    down: FastLinear

    def __call__(self, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
        return self.down.plus(self.up(x), x)


@dataclass(frozen=True, kw_only=True)
class PostNormLayer:
    """Attention, then the feed-forward pair with its residual."""

    qkv: Map
    out: FastLinear
    first_norm: Map
    feed_forward: Map
    second_norm: Map

    def attended(
        self, x: Tensor, packed: Packed, heads: int, bias: Bias | None, wanted: Tensor | None = None
    ) -> Tensor:
        """The first half, of the wanted tokens only where that is given."""
        context = attend(self.qkv(x), packed, heads, bias=bias)
        if wanted is not None:
            context, x = F.embedding(wanted, context), F.embedding(wanted, x)
        return self.first_norm(self.out.plus(context, x))


class PostNormEncoder:
    """BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, DistilBERT and MPNet over packed rows."""

    def __init__(self, backbone: nn.Module, weights: Weights, dtype: torch.dtype) -> None:
        stack = stack_of(backbone)
        joined = partial(FastLinear.joining, weights, dtype=dtype)
        norm = partial(_norm, weights, eps=stack.eps, dtype=dtype)
        self.words = weights["embeddings.word_embeddings.weight"].detach().to(dtype)
        self.positions = position_table(weights, stack).detach().to(dtype)
        self.norm = norm("embeddings.LayerNorm")
        self.projection = joined("embeddings_project") if "embeddings_project.weight" in weights else None
        self.heads, self.activation = stack.heads, stack.activation
        self.layers = [
            PostNormLayer(
                qkv=joined(names["query"], names["key"], names["value"]), out=joined(names["out"]),
                first_norm=norm(names["first_norm"]), second_norm=norm(names["second_norm"]),
                feed_forward=FeedForward(
                    up=joined(names["up"], activation=stack.activation), down=joined(names["down"])
                ),
            )
            for names in stack.layers
        ]
        self.relative = _relative(backbone, weights, dtype)

    def __call__(self, packed: Packed, *, all_layers: bool = False, first_only: bool = False) -> list[Tensor]:
        """Hidden states (tokens, d): the last layer's, or the embeddings' and every layer's.

        With ``first_only`` the last layer's of every row's first token (rows, d): behind the last attention, which is
        where most of a layer's work begins, no others are made.
        """
        x, bias = self.embed(packed)
        states = [x]
        for layer in self.layers:
            is_last = layer is self.layers[-1]
            x = layer.attended(x, packed, self.heads, bias, packed.starts if first_only and is_last else None)
            x = layer.second_norm(layer.feed_forward(x))
            if all_layers:
                states.append(x)
        return states if all_layers else [x]

    def embed(self, packed: Packed) -> tuple[Tensor, Bias | None]:
        """What the first layer reads, and the bias of every layer's attention."""
        x = self.norm(F.embedding(packed.ids, self.words) + F.embedding(packed.positions, self.positions))
        bias = None if self.relative is None else self.relative(max(rows.length for rows in packed.rectangles))
        return x if self.projection is None else self.projection(x), bias


def _relative(model: Any, weights: Weights, dtype: torch.dtype) -> Callable[[int], Bias] | None:
    """MPNet's learned bias by distance: longest row -> (length -> bias); None for the others."""
    if model.config.model_type != "mpnet":
        return None
    weight = weights["encoder.relative_attention_bias.weight"].detach().to(dtype)
    bucket_of, buckets = model.encoder.relative_position_bucket, model.config.relative_attention_num_buckets

    def for_longest(longest: int) -> Bias:
        position = torch.arange(longest)
        distance = position[None, :] - position[:, None]
        bias = F.embedding(bucket_of(distance, num_buckets=buckets), weight).permute(2, 0, 1)
        # distances do not change where the table is cut
        return lambda length: bias[None, :, :length, :length]

    return for_longest


# -------------------------------------------------------------------------------------------- ModernBERT
class ModernBertEncoder:
    """ModernBERT over packed rows."""

    def __init__(self, backbone: nn.Module, weights: Weights, dtype: torch.dtype) -> None:
        config: Any = backbone.config
        self.activation, self.dtype = known(config.hidden_activation), dtype
        self.heads = config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        self.window = config.local_attention // 2
        self.thetas = {kind: float(rope["rope_theta"]) for kind, rope in config.rope_parameters.items()}
        self.words = weights["embeddings.tok_embeddings.weight"].detach().to(dtype)
        self.norm, self.final_norm = (
            _norm(weights, name, config.norm_eps, dtype) for name in ("embeddings.norm", "final_norm")
        )
        self.layers = [
            PreNormLayer(weights, f"layers.{number}.", kind, config.norm_eps, dtype)
            for number, kind in enumerate(config.layer_types)
        ]

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]:
        """See ``PostNormEncoder``."""
        x = self.norm(F.embedding(packed.ids, self.words))
        angles = {
            kind: rotary_angles(packed, self.head_width, theta, self.dtype) for kind, theta in self.thetas.items()
        }
        states = [x]
        for layer in self.layers:
            before = x if layer.first_norm is None else layer.first_norm(x)
            qkv = self._rotate(layer.qkv(before), *angles[layer.kind])
            window = self.window if layer.kind == "sliding_attention" else None
            x = layer.out.plus(attend(qkv, packed, self.heads, window=window), x)
            value, gate = layer.up(layer.second_norm(x)).chunk(2, dim=-1)
            x = layer.down.plus(activated(value, self.activation) * gate, x)
            if all_layers:
                states.append(x)
        return [*states[:-1], self.final_norm(x)] if all_layers else [self.final_norm(x)]

    def _rotate(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary positions on queries and keys, in float32 as the reference does."""
        heads = qkv.view(len(qkv), 3 * self.heads, self.head_width)  # of queries, of keys, of values
        turned = rotated(heads[:, : 2 * self.heads].float(), cos, sin).to(qkv.dtype)
        return torch.cat([turned, heads[:, 2 * self.heads :]], dim=1).view_as(qkv)


class PreNormLayer:
    """One layer of ModernBERT; ``kind`` is "full_attention" or "sliding_attention"."""

    def __init__(self, weights: Weights, home: str, kind: str, eps: float, dtype: torch.dtype) -> None:
        self.kind = kind
        # the first layer reads what the embeddings' norm gave
        has_norm = f"{home}attn_norm.weight" in weights
        self.first_norm = _norm(weights, f"{home}attn_norm", eps, dtype) if has_norm else None
        self.second_norm = _norm(weights, f"{home}mlp_norm", eps, dtype)
        self.qkv, self.out, self.up, self.down = (  # up: value and gate side by side
            FastLinear.joining(weights, home + name, dtype=dtype)
            for name in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
        )
