"""Poolings: from token vectors to one vector a text. ``cls+mean`` joins several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.errors import ModelError
from sentemb.parts import Part, room


class Pooling(Part, nn.Module, room="poolings"):
    """Token vectors to one vector a text; no text sees another.

    A subclass has a keyword-only constructor that keeps settings and makes nothing, ``bind`` for layers with weights
    (they are trained, saved and loaded like the backbone's), and ``forward``. ``hidden`` is float32 where a pooling
    has weights, else the backbone's format.
    """

    needs_layers: bool = False  # whether ``pool_layers`` reads every layer, not the last alone
    reads_mask_token: bool = False  # whether its ``mask`` is 1 at mask tokens only

    @classmethod
    def _read(cls, value: Any) -> Part:
        if isinstance(value, str) and "+" in value:
            return room("poolings").make({"use": "joined", "poolings": value.split("+")})
        return super()._read(value)

    def bind(self, width: int, layers: int) -> int:
        """Make what depends on the width of token vectors and on the number of layers; gives the pooled width."""
        return width

    def start_from(self, folder: Path) -> None:
        """Take what starts from the backbone's checkpoint, once it is bound; most take nothing."""

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b o"]:
        """Pool the last layer's vectors where ``mask`` is 1 (every row has such a token)."""
        raise NotImplementedError

    def pool_layers(self, layers: Sequence[Float[Tensor, "b t d"]], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b o"]:
        """Pool all layers' vectors, the embeddings' first; the last alone where ``needs_layers`` is False."""
        pooled: Tensor = self(layers[-1], mask)
        return pooled


# ---------------------------------------------------------------------------- of the last layer, without weights
class TokenPooling(Pooling):
    """One of sentence-transformers' Pooling module: ``mode`` is its name there, ``flag`` the key of older releases."""

    mode: ClassVar[str]
    flag: ClassVar[str]


class Cls(TokenPooling):
    """The first token's vector."""

    mode, flag = "cls", "pooling_mode_cls_token"

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), mask.argmax(dim=1)]


class Last(TokenPooling):
    """The last token's vector: the default of causal models, whose last token alone sees all others."""

    mode, flag = "lasttoken", "pooling_mode_lasttoken"

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


class Max(TokenPooling):
    """The largest value of every dimension over the tokens."""

    mode, flag = "max", "pooling_mode_max_tokens"

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)


class Mean(TokenPooling):
    """``Σ hᵢ / n``; sums run in float32 or better."""

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


class MeanWords(Mean):
    """Mean without the special tokens at both ends (``[CLS]`` and ``[SEP]``): for words and names of a few pieces.

    The vector of a text that is nothing but these two tokens is their mean.

    Source: Green, Ponzetto & Glavaš (BabelBERT), released code.
    Deviations: the first and the last token are left out whatever they are, so the tokenizer must put one special token
        before a text and one behind it, as BERT's and RoBERTa's do. sentence-transformers has no such pooling and
        cannot open the saved model.
    """

    def _weights(self, mask: Tensor) -> Tensor:
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        words = mask * (positions > 0) * (positions != last[:, None])
        return torch.where(words.any(dim=1, keepdim=True), words, mask)


class Mask(Pooling):
    """The vector at the mask token of a template: what the model would write there.

    Every text stands in a template that has exactly one ``{mask}``, in training (``prompted``, or ``data.prefixes``)
    and in encoding (``encoder.prompts`` with ``encoder.default_prompt``).

    Source: Jiang et al. 2022, EMNLP, "PromptBERT: Improving BERT sentence embeddings with prompts".
    Deviations: none.
    """

    reads_mask_token = True

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), mask.argmax(dim=1)]


# in the order in which sentence-transformers joins several modes that are given as flags
TOKEN_POOLINGS: dict[str, type[TokenPooling]] = {
    "cls": Cls, "max": Max, "mean": Mean, "mean_sqrt_len": MeanSqrtLen, "weighted_mean": WeightedMean, "last": Last,
}


# ----------------------------------------------------------------------------------------- made of other poolings
class Joined(Pooling):
    """Several poolings of the last layer side by side; written ``cls+mean``.

    Args:
        poolings: in the order of their values.
    """

    def __init__(self, *, poolings: tuple[Pooling, ...]) -> None:
        super().__init__()
        if any(part.needs_layers for part in poolings):
            raise ValueError("joins poolings of the last layer only")
        if any(part.reads_mask_token for part in poolings):
            raise ValueError('"mask" reads one token and is joined with none')
        self.poolings, self.parts = nn.ModuleList(poolings), poolings

    def bind(self, width: int, layers: int) -> int:
        return sum(part.bind(width, layers) for part in self.parts)

    def start_from(self, folder: Path) -> None:
        for part in self.parts:
            part.start_from(folder)

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b o"]:
        return torch.cat([part(hidden, mask) for part in self.parts], dim=-1)


class LayerMean(Pooling):
    """A pooling of the weighted mean of all layers: sentence-transformers' WeightedLayerPooling.

    Args:
        weights: one a layer, the embeddings' first; they need not sum to one.
        pooling: of the mean.
    """

    needs_layers = True

    def __init__(self, *, weights: tuple[float, ...] = (), pooling: Pooling | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.pooling = pooling or Mean()
        self.reads_mask_token = self.pooling.reads_mask_token

    def bind(self, width: int, layers: int) -> int:
        if len(self.weights) != layers + 1:
            raise ModelError(f"weights for {len(self.weights)} hidden layers; the backbone has {layers + 1} with its "
                             "embeddings")
        return self.pooling.bind(width, layers)

    def pool_layers(self, layers: Sequence[Float[Tensor, "b t d"]], mask: Int[Tensor, "b t"]) -> Tensor:
        total = sum(self.weights)
        weighted = [layer * (weight / total) for weight, layer in zip(self.weights, layers, strict=True) if weight]
        pooled: Tensor = self.pooling(torch.stack(weighted).sum(0), mask)
        return pooled


class FirstLastMean(LayerMean):
    """Mean over tokens of (embedding output + last layer) / 2.

    Source: Gao, Yao & Chen 2021 (SimCSE), released code ``avg_first_last``.
    Deviations: none; other authors count the first transformer layer as "first", SimCSE the embedding output.
    """

    def __init__(self) -> None:
        super().__init__()

    def bind(self, width: int, layers: int) -> int:
        self.weights = (1.0, *(layers - 1) * (0.0,), 1.0)
        return width


class Last2Mean(LayerMean):
    """Mean over tokens of the mean of the last two layers.

    Source: Gao, Yao & Chen 2021 (SimCSE), released code ``avg_top2``.
    Deviations: none.
    """

    def __init__(self) -> None:
        super().__init__()

    def bind(self, width: int, layers: int) -> int:
        self.weights = (*(layers - 1) * (0.0,), 1.0, 1.0)
        return width


PARTS: dict[str, type[Pooling] | str] = {
    **TOKEN_POOLINGS, "first_last_mean": FirstLastMean, "last2_mean": Last2Mean, "layer_mean": LayerMean,
    "joined": Joined, "mask": Mask, "mean_words": MeanWords,
    "masked_lm_mean": "sentemb.encoder.informative:MaskedLMMean",
}

PoolingChoice = Pooling | str | Mapping[str, Any]


def make_pooling(choice: PoolingChoice) -> Pooling:
    """A pooling, not bound yet, from a name, names joined with ``+``, ``package.module:Class``, a table with ``use``,
    or a pooling of the same settings; raises ``PartError`` for an unknown name or setting."""
    return cast(Pooling, Pooling._read(choice)).fresh()


def known_form(pooling: Pooling) -> tuple[tuple[str, ...], tuple[float, ...] | None] | None:
    """The pooling in sentence-transformers' terms, None where it has no such module: names in ``PARTS``, side by side,
    and a weight for every layer, the embeddings' first (None: the last layer alone)."""
    if isinstance(pooling, LayerMean):
        inner = known_form(pooling.pooling)
        return inner and (inner[0], pooling.weights)
    parts = pooling.parts if isinstance(pooling, Joined) else [pooling]
    names: dict[type[Pooling], str] = {cls: name for name, cls in TOKEN_POOLINGS.items()}
    if any(type(part) not in names for part in parts):
        return None
    return tuple(names[type(part)] for part in parts), None
