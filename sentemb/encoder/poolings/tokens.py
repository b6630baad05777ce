"""Poolings of the last layer that have no weights: one token, the largest values, or a mean."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sentemb.encoder.poolings.pooling import Pooling


class TokenPooling(Pooling):
    """A pooling that sentence-transformers' Pooling module has as well.

    Attributes:
        mode: its name in sentence-transformers' ``pooling_mode``.
        flag: its older name, a key of the module's configuration.
    """

    mode: ClassVar[str]
    flag: ClassVar[str]


class Cls(TokenPooling):
    """The first token's vector."""

    mode, flag = "cls", "pooling_mode_cls_token"

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.argmax(dim=1)]


class Last(TokenPooling):
    """The last token's vector: the default of causal models, whose last token alone sees all others."""

    mode, flag = "lasttoken", "pooling_mode_lasttoken"

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]


class Max(TokenPooling):
    """The largest value of every dimension over the tokens."""

    mode, flag = "max", "pooling_mode_max_tokens"

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)


class Mean(TokenPooling):
    """``Σ wᵢ hᵢ / Σ wᵢ`` with equal weights; sums run in float32 or better."""

    mode, flag = "mean", "pooling_mode_mean_tokens"

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        weights = self._weights(mask.to(torch.promote_types(hidden.dtype, torch.float32)))
        summed = torch.einsum("bt,btd->bd", weights, hidden.to(weights.dtype))
        return (summed / self._divisor(weights.sum(dim=1, keepdim=True).clamp(min=1e-9))).to(hidden.dtype)

    def _weights(self, mask: Tensor) -> Tensor:
        return mask

    def _divisor(self, total: Tensor) -> Tensor:
        return total


class MeanSqrtLen(Mean):
    """``Σ hᵢ / √n``: a mean whose length grows with the text's."""

    mode, flag = "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"

    def _divisor(self, total: Tensor) -> Tensor:
        return total.sqrt()


class WeightedMean(Mean):
    """``Σ i hᵢ / Σ i``: later tokens count more, as causal models' later tokens have seen more.

    Positions count from the text's first token, also where a prompt's tokens are left out.

    Source: Muennighoff 2022 (SGPT), position-weighted mean pooling.
    Deviations: none.
    """

    mode, flag = "weightedmean", "pooling_mode_weightedmean_tokens"

    def _weights(self, mask: Tensor) -> Tensor:
        return mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)


# in the order in which sentence-transformers joins several modes that are given as flags
TOKEN_POOLINGS: dict[str, type[TokenPooling]] = {
    "cls": Cls,
    "max": Max,
    "mean": Mean,
    "mean_sqrt_len": MeanSqrtLen,
    "weighted_mean": WeightedMean,
    "last": Last,
}
