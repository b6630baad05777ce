"""Where the BERT family's architectures keep their layers: the modules that the lean forward passes compute with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_ACTIVATIONS = {"gelu": "gelu", "relu": "relu"}


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
    attention_dropout: nn.Module | None  # of the attention weights
    out_dropout: nn.Module | None
    down_dropout: nn.Module | None


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The layers of a backbone."""

    heads: int
    activation: str
    layers: list[LayerModules]


def activation_of(name: str) -> str:
    """The fused activation for a configuration's name."""
    if name not in _ACTIVATIONS:
        raise Unsupported(f"activation {name}")
    return _ACTIVATIONS[name]


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


def _bert(model: Any) -> Stack:
    config = model.config
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise Unsupported(f"position embeddings {config.position_embedding_type}")
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise Unsupported("a decoder")
    return Stack(heads=config.num_attention_heads, activation=activation_of(config.hidden_act), layers=[
        LayerModules(
            query=layer.attention.self.query, key=layer.attention.self.key, value=layer.attention.self.value,
            out=layer.attention.output.dense, first_norm=layer.attention.output.LayerNorm,
            up=layer.intermediate.dense, down=layer.output.dense, second_norm=layer.output.LayerNorm,
            attention_dropout=getattr(layer.attention.self, "dropout", None),
            out_dropout=getattr(layer.attention.output, "dropout", None),
            down_dropout=getattr(layer.output, "dropout", None),
        )
        for layer in model.encoder.layer
    ])


def _distilbert(model: Any) -> Stack:
    return Stack(heads=model.config.n_heads, activation=activation_of(model.config.activation), layers=[
        LayerModules(
            query=layer.attention.q_lin, key=layer.attention.k_lin, value=layer.attention.v_lin,
            out=layer.attention.out_lin, first_norm=layer.sa_layer_norm,
            up=layer.ffn.lin1, down=layer.ffn.lin2, second_norm=layer.output_layer_norm,
            attention_dropout=getattr(layer.attention, "dropout", None), out_dropout=None,
            down_dropout=getattr(layer.ffn, "dropout", None),
        )
        for layer in model.transformer.layer
    ])


def _mpnet(model: Any) -> Stack:
    return Stack(heads=model.config.num_attention_heads, activation=activation_of(model.config.hidden_act), layers=[
        LayerModules(
            query=layer.attention.attn.q, key=layer.attention.attn.k, value=layer.attention.attn.v,
            out=layer.attention.attn.o, first_norm=layer.attention.LayerNorm,
            up=layer.intermediate.dense, down=layer.output.dense, second_norm=layer.output.LayerNorm,
            attention_dropout=getattr(layer.attention.attn, "dropout", None),
            out_dropout=getattr(layer.attention, "dropout", None), down_dropout=getattr(layer.output, "dropout", None),
        )
        for layer in model.encoder.layer
    ])


FAMILIES: dict[str, Callable[[Any], Stack]] = {
    "bert": _bert, "roberta": _bert, "xlm-roberta": _bert, "camembert": _bert, "electra": _bert,
    "distilbert": _distilbert, "mpnet": _mpnet,
}
