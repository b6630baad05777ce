"""The BERT family: absolute positions, LayerNorm behind every residual sum."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.runners.attention import Bias, attend
from sentemb.encoder.runners.families import FAMILIES, LayerModules, Unsupported, position_table
from sentemb.encoder.runners.linear import FastLinear
from sentemb.encoder.runners.packed import Packed

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Norm:
    """LayerNorm's weights."""

    weight: Tensor
    bias: Tensor | None
    eps: float

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


class PostNormEncoder:
    """BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, DistilBERT and MPNet over packed rows.

    Raises:
        Unsupported: another architecture, activation or position scheme.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        model: Any = backbone
        stack = FAMILIES[model.config.model_type](model)
        embeddings = model.embeddings
        self.words = embeddings.word_embeddings.weight.detach().to(dtype)
        self.positions = position_table(embeddings).detach().to(dtype)
        self.norm = norm(embeddings.LayerNorm, dtype)
        projection = getattr(model, "embeddings_project", None)
        self.projection = None if projection is None else FastLinear.joining([projection], dtype)
        self.heads, self.activation = stack.heads, stack.activation
        self.layers = [_layer(parts, stack.activation, dtype) for parts in stack.layers]
        self.relative = _relative(model, dtype)

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]:
        """Hidden states (tokens, d): the last layer's, or the embeddings' and every layer's."""
        x = self.norm(F.embedding(packed.ids, self.words) + F.embedding(packed.positions, self.positions))
        if self.projection is not None:
            x = self.projection(x)
        bias = None if self.relative is None else self.relative(packed.longest)
        states = [x]
        for layer in self.layers:
            context = attend(layer.qkv(x), packed, self.heads, bias=bias)
            x = layer.first_norm(layer.out.plus(context, x))
            x = layer.second_norm(layer.feed_forward(x))
            if all_layers:
                states.append(x)
        return states if all_layers else [x]

    def with_layers(self, layers: list[PostNormLayer]) -> PostNormEncoder:
        """The same around other layers."""
        other = copy.copy(self)
        other.layers = layers
        return other


def norm(module: nn.Module, dtype: torch.dtype) -> Norm:
    """A LayerNorm's weights in ``dtype``."""
    if type(module) is not nn.LayerNorm:
        raise Unsupported(f"a norm is {type(module).__name__}, not LayerNorm")
    bias = None if module.bias is None else module.bias.detach().to(dtype)
    return Norm(weight=module.weight.detach().to(dtype), bias=bias, eps=module.eps)


def _layer(parts: LayerModules, activation: str, dtype: torch.dtype) -> PostNormLayer:
    return PostNormLayer(
        qkv=FastLinear.joining([parts.query, parts.key, parts.value], dtype),
        out=FastLinear.joining([parts.out], dtype), first_norm=norm(parts.first_norm, dtype),
        feed_forward=FeedForward(
            up=FastLinear.joining([parts.up], dtype, activation), down=FastLinear.joining([parts.down], dtype)
        ),
        second_norm=norm(parts.second_norm, dtype),
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
