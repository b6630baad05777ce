"""From token vectors to one vector a text.

A pooling is one or several modes side by side over a weighted mean of hidden layers (most often the last alone).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.errors import ModelError, did_you_mean

# our name -> (name in sentence-transformers' newer `pooling_mode`, its older boolean). The order is the order in
# which sentence-transformers joins several modes.
MODES: dict[str, tuple[str, str]] = {
    "cls": ("cls", "pooling_mode_cls_token"),
    "max": ("max", "pooling_mode_max_tokens"),
    "mean": ("mean", "pooling_mode_mean_tokens"),
    "mean_sqrt_len": ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    "weighted_mean": ("weightedmean", "pooling_mode_weightedmean_tokens"),
    "last": ("lasttoken", "pooling_mode_lasttoken"),
}
# poolings over several layers: weights of (embedding output, layer 1, …, layer L), given L
LAYERED = ("first_last_mean", "last2_mean")
POOLINGS: tuple[str, ...] = (*MODES, *LAYERED)


@dataclass(frozen=True)
class PoolingSpec:
    """What a pooling is, as read from or written to a checkpoint."""

    modes: tuple[str, ...] = ("mean",)
    layer_weights: tuple[float, ...] | None = None  # one per hidden state, embeddings first; None: the last alone
    include_prompt: bool = True  # whether the prompt's tokens are pooled too


def pooling_spec(name: str, layers: int) -> PoolingSpec:
    """The pooling called ``name``; several modes are joined with ``+`` (``"cls+mean"``).

    ``first_last_mean`` is the mean over tokens of (embedding output + last layer) / 2, ``last2_mean`` of the last two
    layers.

    Args:
        name: one of ``POOLINGS``, or modes of ``MODES`` joined with ``+``.
        layers: the backbone's transformer layers.

    Raises:
        ModelError: unknown name.

    Source: Gao, Yao & Chen 2021 (SimCSE), released code ``avg_first_last`` and ``avg_top2``.
    Deviations: none; other authors count the first transformer layer as "first", SimCSE the embedding output.
    """
    weights = [0.0] * (layers + 1)
    if name == "first_last_mean":
        weights[0] = weights[-1] = 1.0
        return PoolingSpec(("mean",), tuple(weights))
    if name == "last2_mean":
        weights[-1] = weights[-2] = 1.0
        return PoolingSpec(("mean",), tuple(weights))
    modes = tuple(name.split("+"))
    for mode in modes:
        if mode not in MODES:
            raise ModelError(f'pooling = "{name}"{did_you_mean(mode, POOLINGS)}')
    return PoolingSpec(modes)


class Pooling(nn.Module):
    """Pools hidden states with right padding; row-wise, without parameters."""

    def __init__(self, spec: PoolingSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.width = width * len(spec.modes)

    @property
    def needs_layers(self) -> bool:
        """Whether all hidden layers are read."""
        return self.spec.layer_weights is not None

    def combine(self, layers: tuple[Float[Tensor, "b t d"], ...]) -> Float[Tensor, "b t d"]:
        """The weighted mean of the hidden layers, embeddings first."""
        weights = self.spec.layer_weights
        assert weights is not None
        assert len(weights) == len(layers)
        used = [(weight, layer) for weight, layer in zip(weights, layers, strict=True) if weight]
        total = sum(weight for weight, _ in used)
        return torch.stack([layer * (weight / total) for weight, layer in used]).sum(0)

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"], prompt_tokens: int = 0) -> Tensor:
        """Pool ``hidden`` where ``mask`` is 1; the first ``prompt_tokens`` are left out if the spec says so."""
        skip = 0 if self.spec.include_prompt else prompt_tokens
        used = mask
        if skip:
            used = mask.clone()
            used[:, :skip] = 0
        pooled = [pool(mode, hidden, used) for mode in self.spec.modes]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)

    def extra_repr(self) -> str:
        return "+".join(self.spec.modes)


def pool(mode: str, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """One mode over the tokens where ``mask`` is 1. Sums run in float32 or better, the result has hidden's dtype.

    Position weights count from the text's first token, also where a prompt's tokens are masked.
    """
    if mode == "cls":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.argmax(dim=1)]
    if mode == "last":
        # first of the largest values in reversed order = last token
        last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    if mode == "max":
        return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)
    weights = mask.to(torch.promote_types(hidden.dtype, torch.float32))
    if mode == "weighted_mean":
        weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    summed = torch.einsum("bt,btd->bd", weights, hidden.to(weights.dtype))
    count = weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return (summed / (count.sqrt() if mode == "mean_sqrt_len" else count)).to(hidden.dtype)
