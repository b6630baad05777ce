"""The lean form of decoders: packed rows through Qwen3, Qwen2, Llama or Mistral, on the weights where they are.

A weight is copied only where the format of computing is another one: models of this kind may fill a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sentemb.encoder.runners.attention import Map, Packed, Rectangle, rotary_angles, rotated, softmax_parts
from sentemb.encoder.runners.families import Unsupported, Weights

# The longest rows whose attention is two products; others go to PyTorch's tiled attention. Timed on one Zen 4 core (16
# heads of 128, 8 of keys, about 1,000 tokens, milliseconds), products against tiled: bfloat16 4 against 11 at 31
# tokens, 15 against 29 at 250, 31 against 57 at 500; float32 15 against 15 at 31, 34 against 28 at 250.
_PRODUCTS = {torch.bfloat16: 512}


class DecoderEncoder:
    """Qwen3, Qwen2, Llama and Mistral over packed rows; a token sees those before it."""

    def __init__(self, backbone: nn.Module, weights: Weights, dtype: torch.dtype) -> None:
        config: Any = backbone.config
        rope = getattr(config, "rope_parameters", None) or {}
        if config.hidden_act != "silu" or rope.get("rope_type", "default") != "default":
            raise Unsupported(f"activation {config.hidden_act}, positions {rope.get('rope_type')}")
        if not getattr(config, "is_causal", True):
            raise Unsupported("a decoder that sees what follows")
        self.width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.theta, self.dtype = float(rope.get("rope_theta", 10_000.0)), dtype
        self.words = weights["embed_tokens.weight"].detach().to(dtype)
        norm = partial(_rms_norm, weights, eps=config.rms_norm_eps, dtype=dtype)
        self.final_norm = norm("norm")
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
        self.layers = [
            DecoderLayer(weights, f"layers.{number}.", norm, dtype, self.width, window if "sliding" in kind else None)
            for number, kind in enumerate(kinds)
        ]

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]:
        """See ``PostNormEncoder``."""
        x = F.embedding(packed.ids, self.words)
        angles = rotary_angles(packed, self.width, self.theta, self.dtype)
        windows = {layer.window for layer in self.layers}
        seen = {window: [_seen(rows.length, window) for rows in packed.rectangles] for window in windows}
        states = [x]
        for layer in self.layers:
            x = layer(x, packed, angles, seen[layer.window])
            if all_layers:
                states.append(x)
        return [*states[:-1], self.final_norm(x)] if all_layers else [self.final_norm(x)]


class DecoderLayer:
    """Attention of a few key heads, each shared by several query heads, and the gated feed-forward pair."""

    def __init__(
        self, weights: Weights, home: str, norm: Callable[[str], Map], dtype: torch.dtype, width: int,
        window: int | None,
    ) -> None:
        self.query, self.key, self.value, self.out, self.gate, self.up, self.down = (
            _linear(weights, home + name, dtype) for name in (
                "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                "mlp.up_proj", "mlp.down_proj")
        )  # fmt: skip
        self.first_norm, self.second_norm = norm(f"{home}input_layernorm"), norm(f"{home}post_attention_layernorm")
        names = (f"{home}self_attn.q_norm", f"{home}self_attn.k_norm")  # Qwen3's, over a head
        self.query_norm, self.key_norm = (norm(name) if f"{name}.weight" in weights else None for name in names)
        self.width, self.window = width, window

    def __call__(
        self, x: Tensor, packed: Packed, angles: tuple[Tensor, Tensor], seen: Sequence[Bool[Tensor, "length length"]]
    ) -> Tensor:
        before = self.first_norm(x)
        maps = (self.query, self.key, self.value)
        query, key, value = (linear(before).unflatten(-1, (-1, self.width)) for linear in maps)
        query = rotated(query if self.query_norm is None else self.query_norm(query), *angles)
        key = rotated(key if self.key_norm is None else self.key_norm(key), *angles)
        masks = zip(packed.rectangles, seen, strict=True)
        parts = [self._attend(rows, query, key, value, mask) for rows, mask in masks]
        x = self.out(parts[0] if len(parts) == 1 else torch.cat(parts)).add_(x)
        before = self.second_norm(x)
        return self.down(F.silu(self.gate(before)).mul_(self.up(before))).add_(x)

    def _attend(
        self, rows: Rectangle, query: Float[Tensor, "tokens heads w"], key: Float[Tensor, "tokens keys w"],
        value: Float[Tensor, "tokens keys w"], seen: Bool[Tensor, "length length"],
    ) -> Float[Tensor, "tokens heads_w"]:
        """Rows that were filled up need no mask: what fills them stands behind every token."""
        length, keys = rows.length, key.shape[1]
        shared = query.shape[1] // keys
        of_rows = [
            rows.of(part.flatten(1)).unflatten(-1, (-1, self.width)).transpose(1, 2) for part in (query, key, value)
        ]
        if length > _PRODUCTS.get(query.dtype, 0):
            out = F.scaled_dot_product_attention(of_rows[0], of_rows[1], of_rows[2], attn_mask=seen, enable_gqa=True)
        else:  # the query heads of one key head stand below one another, so that their products are one
            q, k, v = (part.reshape(rows.rows * keys, -1, self.width) for part in of_rows)
            powers, totals = softmax_parts(q, k, seen.repeat(shared, 1), rows.rows)
            out = torch.bmm(powers, v).div_(totals).view(rows.rows, keys * shared, length, self.width)
        return rows.tokens_of(out.transpose(1, 2).flatten(2))


def _seen(length: int, window: int | None) -> Bool[Tensor, "length length"]:
    """Which tokens a token sees: itself and those before it, at most ``window`` together."""
    seen = torch.ones(length, length, dtype=torch.bool).tril_()
    return seen if window is None or window >= length else seen.triu_(1 - window)


def _linear(weights: Weights, name: str, dtype: torch.dtype) -> Map:
    bias = weights.get(f"{name}.bias")
    return partial(F.linear, weight=weights[f"{name}.weight"].detach().to(dtype),
                   bias=None if bias is None else bias.detach().to(dtype))


def _rms_norm(weights: Weights, name: str, *, eps: float, dtype: torch.dtype) -> Map:
    weight = weights[f"{name}.weight"].detach().to(dtype)
    return partial(F.rms_norm, normalized_shape=weight.shape, weight=weight, eps=eps)
