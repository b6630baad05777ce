"""ModernBERT: rotary positions, gated feed-forward, LayerNorm before every block, some layers with a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentemb.encoder.runners.attention import attend
from sentemb.encoder.runners.families import activation_of
from sentemb.encoder.runners.linear import FastLinear
from sentemb.encoder.runners.packed import Packed
from sentemb.encoder.runners.post_norm import Norm, norm


@dataclass(frozen=True, kw_only=True)
class PreNormLayer:
    """One transformer layer."""

    first_norm: Norm | None  # the first layer's is the embeddings'
    qkv: FastLinear
    out: FastLinear
    second_norm: Norm
    up: FastLinear  # value and gate side by side
    down: FastLinear
    kind: str  # "full_attention" or "sliding_attention"


class ModernBertEncoder:
    """ModernBERT over packed rows.

    Raises:
        Unsupported: another activation or layer type.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        model: Any = backbone
        config = model.config
        self.words = model.embeddings.tok_embeddings.weight.detach().to(dtype)
        self.norm = norm(model.embeddings.norm, dtype)
        self.final_norm = norm(model.final_norm, dtype)
        activation_of(config.hidden_activation)
        self.is_gelu = config.hidden_activation == "gelu"
        self.heads = config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        self.window = config.local_attention // 2
        self.dtype = dtype
        self.thetas = {kind: float(rope["rope_theta"]) for kind, rope in config.rope_parameters.items()}
        self.layers = [
            PreNormLayer(
                first_norm=None if isinstance(layer.attn_norm, nn.Identity) else norm(layer.attn_norm, dtype),
                qkv=FastLinear.joining([layer.attn.Wqkv], dtype), out=FastLinear.joining([layer.attn.Wo], dtype),
                second_norm=norm(layer.mlp_norm, dtype), up=FastLinear.joining([layer.mlp.Wi], dtype),
                down=FastLinear.joining([layer.mlp.Wo], dtype), kind=kind,
            )
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
