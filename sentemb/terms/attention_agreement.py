"""Both passes of a text attend alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Whole
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, Encoded, PairScores, Share

_HIGHEST = 1 - 1e-6  # ρ²: equal maps have a finite loss
_ROUNDING = 1e-10  # variance of logs below which a map is constant


class AttentionAgreement(Term):
    """Minus the mutual information of the attention maps of anchor and positive, two passes of one text:

        I = -1/2 log(1 - ρ²),    L = -mean over texts, heads and m of I · v²

    ρ is the correlation of log A and log A⁺ over the cells (query, key) that are above 0 in both maps; dropout sets
    others to 0. v is their share of the text's own cells. Layers are taken in pairs: m is the first or the second of
    all pairs, whose maps are joined. For views of one text, as of ``twice``: of two texts, cells mean nothing to each
    other. Attention weights are computed by the plain forward pass, one view at a time, which is slower.

    Args:
        layers: first layer and the one after the last, counted from 0; 7 to 10 of BERT-base's 12 in miCSE.
    Returns: this device's share over texts, heads and m. A padded cell never counts.
    Raises:
        ValueError: layers that make no pairs.
        RecipeError: layers that the backbone does not have.
    Source: Klein & Nabi 2023, ACL, "miCSE: Mutual information contrastive learning for low-shot sentence embeddings",
        its released code.
    Deviations: all valid cells count, where the release draws 150. ρ² is at most 1 - 1e-6, where it has no bound. v is
        of each map and of the text's own cells; in the release it is of the batch and includes padding, so that the
        weight falls with the longest text: with equal weights the term counts more here.
    """

    def __init__(self, *, layers: tuple[Whole, Whole] = (7, 11)) -> None:
        super().__init__()
        if layers[1] <= layers[0] or (layers[1] - layers[0]) % 2:
            raise ValueError(f"layers = {list(layers)}; from the first to before the second must be 2, 4, … layers")
        self.layers = layers
        self.encodes = frozenset({"anchor", "positive"})
        self.needs = frozenset({"attentions", "tokens", "view:anchor", "view:positive"})

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Sharded weights, with which transformers gives no attention weights."""
        train = recipe.get("train")
        if train is None or not train.shard:
            return []
        return ["reads attention weights, which sharded backbones do not give; leave out train.shard = true"]

    def bind(self, build: Build) -> None:
        """Refuse layers that the backbone does not have."""
        encoder: Any = build.encoder
        self._require(encoder.backbone.config.num_hidden_layers)

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's texts."""
        first, second = (batch.tokens[view].attention_mask.bool() for view in ("anchor", "positive"))
        t = min(first.shape[1], second.shape[1])
        own = first[:, :t] & second[:, :t]
        cells = (own[:, :, None] & own[:, None, :])[:, None, None, None]
        information = mutual_information(
            self._maps(batch.encoded["anchor"], t), self._maps(batch.encoded["positive"], t), cells
        )
        return Share(total=-information.sum(), count=information.new_tensor(float(information.numel())))

    def _maps(self, encoded: Encoded, t: int) -> Float[Tensor, "b 2 h l t t"]:
        """The first ``t`` tokens' maps: by text, place in the pair, head and pair."""
        first, stop = self.layers
        maps = encoded.attentions
        assert maps is not None
        self._require(len(maps))
        places = [torch.stack([layer[..., :t, :t] for layer in maps[first + m : stop : 2]], dim=2) for m in (0, 1)]
        return torch.stack(places, dim=1)

    def _require(self, layers: int) -> None:
        if layers < self.layers[1]:
            raise RecipeError(f"{self.name}: layers = {list(self.layers)}, but the backbone has {layers} layers")


def mutual_information(
    x: Float[Tensor, "b 2 h l t t"], y: Float[Tensor, "b 2 h l t t"], own: Bool[Tensor, "b 1 1 1 t t"]
) -> Float[Tensor, "b 2 h"]:
    """``-1/2 log(1 - ρ²) · v²`` of the maps joined over l, in float32 or better; 0 where the cells do not vary."""
    own = own.expand(-1, -1, -1, x.shape[3], -1, -1).flatten(3)
    x, y = at_least_float32(x).flatten(3), at_least_float32(y).flatten(3)
    least = torch.finfo(x.dtype).tiny  # below it 1/x, the logarithm's slope, is infinite
    valid = own & (x >= least) & (y >= least)
    count = valid.sum(dim=3)

    def centred(maps: Tensor) -> Tensor:
        logs = torch.where(valid, maps, 1.0).log()
        return (logs - logs.sum(dim=3, keepdim=True) / count.clamp(min=1)[..., None]) * valid

    u, v = centred(x), centred(y)
    first, second = u.square().sum(dim=3), v.square().sum(dim=3)
    varies = (first > _ROUNDING * count) & (second > _ROUNDING * count)
    squared = torch.where(varies, (u * v).sum(dim=3).square() / torch.where(varies, first * second, 1.0), 0.0)
    share = count.to(x.dtype) / own.sum(dim=3).clamp(min=1)
    return -0.5 * torch.log1p(-squared.clamp(max=_HIGHEST)) * share.square()
