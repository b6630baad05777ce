"""The lean forms: packed rows through BERT's family or ModernBERT with weights prepared for a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.runners import families
from sentemb.encoder.runners.attention import Bias, Packed, attend
from sentemb.encoder.runners.families import FAMILIES, LayerModules, Unsupported
from sentemb.encoder.runners.linear import FastLinear

Map = Callable[[Tensor], Tensor]


class LeanForm(Protocol):
    """Packed rows to hidden states (tokens, d): the last, or the embeddings' and every layer's."""

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]: ...


class Norm:
    """A LayerNorm in ``dtype``."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        if type(module) is not nn.LayerNorm:
            raise Unsupported(f"a norm is {type(module).__name__}, not LayerNorm")
        self.weight, self.eps = module.weight.detach().to(dtype), module.eps
        self.bias = None if module.bias is None else module.bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """``x + down(activation(up(x)))``."""

    up: FastLinear
    down: FastLinear

    def __call__(self, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
        return self.down.plus(self.up(x), x)


@dataclass(frozen=True, kw_only=True)
class PostNormLayer:
    """One transformer layer: attention, then the feed-forward pair with its residual."""

    qkv: Map
    out: FastLinear
    first_norm: Norm
    feed_forward: Map
    second_norm: Norm

    def attended(self, x: Tensor, packed: Packed, heads: int, bias: Bias | None) -> Tensor:
        """The first half."""
        return self.first_norm(self.out.plus(attend(self.qkv(x), packed, heads, bias=bias), x))


class PostNormEncoder:
    """BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, DistilBERT and MPNet over packed rows.

    Raises:
        Unsupported: another architecture, activation or position scheme.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        model: Any = backbone
        stack = families.stack_of(model)
        embeddings = model.embeddings
        self.words = embeddings.word_embeddings.weight.detach().to(dtype)
        self.positions = families.position_table(embeddings).detach().to(dtype)
        self.norm = Norm(embeddings.LayerNorm, dtype)
        projection = getattr(model, "embeddings_project", None)
        self.projection = None if projection is None else FastLinear.joining([projection], dtype)
        self.heads, self.activation = stack.heads, stack.activation
        self.layers = [_layer(parts, stack.activation, dtype) for parts in stack.layers]
        self.relative = _relative(model, dtype)

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]:
        """Hidden states (tokens, d): the last layer's, or the embeddings' and every layer's."""
        x, bias = self.embed(packed)
        states = [x]
        for layer in self.layers:
            x = layer.attended(x, packed, self.heads, bias)
            x = layer.second_norm(layer.feed_forward(x))
            if all_layers:
                states.append(x)
        return states if all_layers else [x]

    def embed(self, packed: Packed) -> tuple[Tensor, Bias | None]:
        """What the first layer reads, and the bias of every layer's attention."""
        x = self.norm(F.embedding(packed.ids, self.words) + F.embedding(packed.positions, self.positions))
        bias = None if self.relative is None else self.relative(packed.longest)
        return x if self.projection is None else self.projection(x), bias

    def with_layers(self, layers: list[PostNormLayer]) -> PostNormEncoder:
        """The same around other layers."""
        other = copy.copy(self)
        other.layers = layers
        return other


def _layer(parts: LayerModules, activation: str, dtype: torch.dtype) -> PostNormLayer:
    return PostNormLayer(
        qkv=FastLinear.joining([parts.query, parts.key, parts.value], dtype),
        out=FastLinear.joining([parts.out], dtype), first_norm=Norm(parts.first_norm, dtype),
        feed_forward=FeedForward(
            up=FastLinear.joining([parts.up], dtype, activation), down=FastLinear.joining([parts.down], dtype)
        ),
        second_norm=Norm(parts.second_norm, dtype),
    )


def _relative(model: Any, dtype: torch.dtype) -> Any:
    """MPNet's learned bias by distance: longest row -> (length -> bias); None for the others."""
    if model.config.model_type != "mpnet":
        return None
    weight = model.encoder.relative_attention_bias.weight.detach().to(dtype)
    bucket_of, buckets = model.encoder.relative_position_bucket, model.config.relative_attention_num_buckets

    def for_longest(longest: int) -> Bias:
        position = torch.arange(longest, device=weight.device)
        distance = position[None, :] - position[:, None]
        bias = F.embedding(bucket_of(distance, num_buckets=buckets), weight).permute(2, 0, 1)
        # distances do not change where the table is cut
        return lambda length: bias[None, :, :length, :length]

    return for_longest


# -------------------------------------------------------------------------------------------- ModernBERT
class PreNormLayer:
    """One transformer layer; ``kind`` is "full_attention" or "sliding_attention"."""

    def __init__(self, layer: Any, kind: str, dtype: torch.dtype) -> None:
        self.kind = kind
        # the first layer's is the embeddings'
        self.first_norm = None if isinstance(layer.attn_norm, nn.Identity) else Norm(layer.attn_norm, dtype)
        self.second_norm = Norm(layer.mlp_norm, dtype)
        linears = (layer.attn.Wqkv, layer.attn.Wo, layer.mlp.Wi, layer.mlp.Wo)  # up: value and gate side by side
        self.qkv, self.out, self.up, self.down = (FastLinear.joining([linear], dtype) for linear in linears)


class ModernBertEncoder:
    """ModernBERT over packed rows.

    Raises:
        Unsupported: another activation or layer type.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        model: Any = backbone
        config = model.config
        self.words = model.embeddings.tok_embeddings.weight.detach().to(dtype)
        self.norm = Norm(model.embeddings.norm, dtype)
        self.final_norm = Norm(model.final_norm, dtype)
        families.activation_of(config.hidden_activation)
        self.is_gelu = config.hidden_activation == "gelu"
        self.heads = config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        self.window = config.local_attention // 2
        self.dtype = dtype
        self.thetas = {kind: float(rope["rope_theta"]) for kind, rope in config.rope_parameters.items()}
        self.layers = [
            PreNormLayer(layer, kind, dtype)
            for layer, kind in zip(model.layers, config.layer_types, strict=True)
        ]

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]:
        """Hidden states (tokens, d): the last layer's, or the embeddings' and every layer's."""
        x = self.norm(F.embedding(packed.ids, self.words))
        turns = {kind: self._turns(packed, theta) for kind, theta in self.thetas.items()}
        states = [x]
        for layer in self.layers:
            before = x if layer.first_norm is None else layer.first_norm(x)
            qkv = self._rotate(layer.qkv(before), *turns[layer.kind])
            window = self.window if layer.kind == "sliding_attention" else None
            x = layer.out.plus(attend(qkv, packed, self.heads, window=window), x)
            value, gate = layer.up(layer.second_norm(x)).chunk(2, dim=-1)
            activated = F.gelu(value) if self.is_gelu else F.relu(value)
            x = layer.down.plus(activated * gate, x)
            if all_layers:
                states.append(x)
        if all_layers:
            return [*states[:-1], self.final_norm(x)]
        return [self.final_norm(x)]

    def _turns(self, packed: Packed, theta: float) -> tuple[Tensor, Tensor]:
        steps = torch.arange(0, self.head_width, 2, device=packed.ids.device, dtype=torch.float32) / self.head_width
        angle = packed.positions[:, None].float() * theta**-steps
        both = torch.cat([angle, angle], dim=-1)[:, None, None, :]
        return both.cos().to(self.dtype), both.sin().to(self.dtype)

    def _rotate(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary positions on queries and keys, in float32 as the reference does."""
        split = qkv.view(len(qkv), 3, self.heads, self.head_width)
        turned = split[:, :2].float()
        low, high = turned.chunk(2, dim=-1)
        turned = turned * cos + torch.cat([-high, low], dim=-1) * sin
        return torch.cat([turned.to(qkv.dtype), split[:, 2:]], dim=1).view_as(qkv)


# ------------------------------------------------------------------------------------ the form of a backbone
_MAKERS: dict[str, Callable[[nn.Module, torch.dtype], LeanForm]] = {
    **dict.fromkeys(FAMILIES, PostNormEncoder), "modernbert": ModernBertEncoder,
}


def lean_form(backbone: nn.Module, dtype: torch.dtype) -> LeanForm:
    """The lean form of a backbone, with its own copy of the weights.

    Raises:
        Unsupported: the architecture, or something in it, is not known here, or it is not on a CPU.
    """
    if any(weight.device.type != "cpu" for weight in backbone.parameters()):
        raise Unsupported("a backbone that is not on a CPU")
    kind = families.kind_of(backbone, "transformers.models.", "sentemb.encoder.quick_start")
    if kind not in _MAKERS:
        raise Unsupported(f"architecture {kind}")
    try:
        return _MAKERS[kind](backbone, dtype)
    except AttributeError as error:  # another release of transformers names a layer differently
        raise Unsupported(str(error)) from error
