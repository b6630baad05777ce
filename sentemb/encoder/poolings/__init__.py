"""Poolings: from token vectors to one vector a text. ``cls+mean`` joins several side by side."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentemb.encoder.poolings.composed import FirstLastMean, Joined, Last2Mean, LayerMean
from sentemb.encoder.poolings.pooling import Pooling, pool
from sentemb.encoder.poolings.tokens import TOKEN_POOLINGS, TokenPooling
from sentemb.errors import ModelError, did_you_mean

PARTS: dict[str, type[Pooling]] = {
    **TOKEN_POOLINGS,
    "first_last_mean": FirstLastMean,
    "last2_mean": Last2Mean,
    "layer_mean": LayerMean,
}

PoolingChoice = Pooling | str | Mapping[str, Any]


def make_pooling(choice: PoolingChoice) -> Pooling:
    """A pooling from a name, names joined with ``+``, ``package.module:Class``, a table with ``use``, or itself.

    Raises:
        ModelError: an unknown name or setting.
    """
    if isinstance(choice, Pooling):
        return choice
    settings = dict(choice) if isinstance(choice, Mapping) else {"use": choice}
    name = str(settings.pop("use", ""))
    if "+" in name:
        joined = [make_pooling(part) for part in name.split("+")]
        if settings or any(part.needs_layers for part in joined):
            raise ModelError(f'pooling = "{name}": only poolings of the last layer, without settings, can be joined')
        return Joined(poolings=joined)
    try:
        return _class_of(name)(**settings)
    except TypeError as error:
        raise ModelError(f'pooling "{name}": {error}') from None


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


def _class_of(name: str) -> type[Pooling]:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ModelError(f'pooling = "{name}": {error}') from None
        if not (isinstance(found, type) and issubclass(found, Pooling)):
            raise ModelError(f'pooling = "{name}": not a class that extends sentemb.encoder.poolings.Pooling')
        return found
    if name not in PARTS:
        raise ModelError(f'pooling = "{name}"{did_you_mean(name, PARTS)}')
    return PARTS[name]


__all__ = [
    "PARTS", "Joined", "KnownForm", "LayerMean", "Pooling", "PoolingChoice", "TokenPooling", "from_known_form",
    "known_form", "make_pooling", "pool",
]
