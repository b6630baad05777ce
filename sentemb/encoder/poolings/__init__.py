"""Poolings: from token vectors to one vector a text. ``cls+mean`` joins several side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentemb.encoder.poolings.composed import FirstLastMean, Joined, Last2Mean, LayerMean
from sentemb.encoder.poolings.pooling import Pooling, pool
from sentemb.encoder.poolings.tokens import TOKEN_POOLINGS, TokenPooling
from sentemb.parts import room

PARTS: dict[str, type[Pooling]] = {
    **TOKEN_POOLINGS,
    "first_last_mean": FirstLastMean,
    "last2_mean": Last2Mean,
    "layer_mean": LayerMean,
    "joined": Joined,
}

PoolingChoice = Pooling | str | Mapping[str, Any]


def make_pooling(choice: PoolingChoice) -> Pooling:
    """A pooling, not bound yet, from a name, names joined with ``+``, ``package.module:Class``, a table with ``use``,
    or a pooling of the same settings.

    Raises:
        PartError: an unknown name or setting.
    """
    if isinstance(choice, str) and "+" in choice:
        return Joined(poolings=tuple(make_pooling(name) for name in choice.split("+")))
    if not isinstance(choice, Pooling):
        part = room("poolings").make({"use": choice} if isinstance(choice, str) else choice)
        assert isinstance(part, Pooling)  # room.find saw to it
        return part
    return choice.fresh()


@dataclass(frozen=True, kw_only=True)
class KnownForm:
    """A pooling as sentence-transformers' own modules hold it.

    Attributes:
        modes: names in ``PARTS``, side by side.
        layer_weights: one a layer, the embeddings' first; None: the last layer alone.
    """

    modes: tuple[str, ...]
    layer_weights: tuple[float, ...] | None = None


def known_form(pooling: Pooling) -> KnownForm | None:
    """The pooling in sentence-transformers' terms; None where it has no such module."""
    if isinstance(pooling, LayerMean):
        inner = known_form(pooling.pooling)
        return inner and KnownForm(modes=inner.modes, layer_weights=pooling.weights)
    parts = pooling.parts if isinstance(pooling, Joined) else [pooling]
    names: dict[type[Pooling], str] = {cls: name for name, cls in TOKEN_POOLINGS.items()}
    if any(type(part) not in names for part in parts):
        return None
    return KnownForm(modes=tuple(names[type(part)] for part in parts))


def from_known_form(form: KnownForm) -> Pooling:
    """The pooling that ``known_form`` describes."""
    pooling = make_pooling("+".join(form.modes))
    return pooling if form.layer_weights is None else LayerMean(weights=form.layer_weights, pooling=pooling)


__all__ = [
    "PARTS", "Joined", "KnownForm", "LayerMean", "Pooling", "PoolingChoice", "TokenPooling", "from_known_form",
    "known_form", "make_pooling", "pool",
]
