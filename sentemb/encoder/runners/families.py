"""Where the BERT family's architectures keep their layers: the modules that the lean forward passes compute with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


class Unsupported(Exception):  # noqa: N818 - not an error: the plain path takes over
    """The lean forms do not know this model; the message says what they met."""


@dataclass(frozen=True, kw_only=True)
class LayerModules:
    """One transformer layer's modules; a dropout is the module, a probability's holder, or None for none."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    out: nn.Module
    first_norm: nn.Module
    up: nn.Module
    down: nn.Module
    second_norm: nn.Module
    attention_dropout: nn.Module | None = None  # of the attention weights
    out_dropout: nn.Module | None = None
    down_dropout: nn.Module | None = None


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The layers of a backbone."""

    heads: int
    activation: str
    layers: list[LayerModules]


def activation_of(name: str) -> str:
    """The fused activation for a configuration's name."""
    if name not in ("gelu", "relu"):
        raise Unsupported(f"activation {name}")
    return name


def kind_of(backbone: nn.Module, *homes: str) -> str:
    """The architecture's name.

    Raises:
        Unsupported: the class is of none of these packages: a subclass (remote code) may compute something else
            under the same name.
    """
    if not type(backbone).__module__.startswith(homes):
        raise Unsupported(f"{type(backbone).__name__} from outside {homes[0].partition('.')[0]}")
    config = getattr(backbone, "config", None)
    return str(getattr(config, "model_type", type(backbone).__name__))


def position_table(embeddings: Any) -> Tensor:
    """What is added to the word vectors, by position from 0 on."""
    table: Tensor = embeddings.position_embeddings.weight
    padding = embeddings.position_embeddings.padding_idx
    # RoBERTa and MPNet leave out the positions up to the padding's
    table = table if padding is None else table[padding + 1 :]
    types = getattr(embeddings, "token_type_embeddings", None)
    # every token has type 0, so its vector joins the positions'
    return table if types is None else table + types.weight[0]


# where a layer's modules lie, under the names of ``LayerModules``
_BERT = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "first_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense", "down": "output.dense", "second_norm": "output.LayerNorm",
    "attention_dropout": "attention.self.dropout", "out_dropout": "attention.output.dropout",
    "down_dropout": "output.dropout",
}
_MPNET = _BERT | {
    "query": "attention.attn.q", "key": "attention.attn.k", "value": "attention.attn.v", "out": "attention.attn.o",
    "first_norm": "attention.LayerNorm", "attention_dropout": "attention.attn.dropout",
    "out_dropout": "attention.dropout",
}
_DISTILBERT = {
    "query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin", "out": "attention.out_lin",
    "first_norm": "sa_layer_norm", "up": "ffn.lin1", "down": "ffn.lin2", "second_norm": "output_layer_norm",
    "attention_dropout": "attention.dropout", "down_dropout": "ffn.dropout",
}
FAMILIES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": _DISTILBERT, "mpnet": _MPNET,
}


def stack_of(backbone: nn.Module) -> Stack:
    """The layers of a backbone of one of the ``FAMILIES``.

    Raises:
        Unsupported: something in it that the lean forms do not compute.
        AttributeError: another release of transformers names a layer differently.
    """
    model: Any = backbone
    config = model.config
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise Unsupported(f"position embeddings {config.position_embedding_type}")
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise Unsupported("a decoder")
    is_distilbert = config.model_type == "distilbert"
    layers = model.transformer.layer if is_distilbert else model.encoder.layer
    paths = FAMILIES[config.model_type]
    return Stack(
        heads=config.n_heads if is_distilbert else config.num_attention_heads,
        activation=activation_of(config.activation if is_distilbert else config.hidden_act),
        layers=[LayerModules(**{name: _module(layer, path) for name, path in paths.items()}) for layer in layers],
    )


def _module(layer: Any, path: str) -> Any:
    try:
        return layer.get_submodule(path)
    except AttributeError:
        if path.endswith("dropout"):  # a checkpoint that was read without transformers has none
            return None
        raise
