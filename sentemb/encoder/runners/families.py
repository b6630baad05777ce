"""The architectures that the lean forward passes know, and where their weights lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (nn.Linear, nn.LayerNorm, nn.Embedding)


class Unsupported(Exception):  # noqa: N818 - not an error: the plain path takes over
    """The lean forms do not know this model; the message says what they met."""


class Weights(dict[str, Tensor]):
    """A backbone's weights by name; asking for one that it lacks raises ``Unsupported``."""

    def __missing__(self, name: str) -> Tensor:
        raise Unsupported(f"no weight called {name}")  # another release of transformers may name it differently


class Skeleton(nn.Module):
    """A checkpoint's weights under their names, and its configuration; the lean forward pass needs no more."""

    def __init__(self, config: Any, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        # ``register_parameter`` refuses names with dots
        self._parameters |= {name: nn.Parameter(weight, requires_grad=False) for name, weight in weights.items()}


def kind_of(backbone: nn.Module) -> str:
    """The architecture's name, of transformers' own classes: a subclass (remote code) may compute something else."""
    if not (isinstance(backbone, Skeleton) or type(backbone).__module__.startswith("transformers.models.")):
        raise Unsupported(f"{type(backbone).__name__} from outside transformers")
    config: Any = backbone.config
    return str(config.model_type)


def plain_weights(backbone: nn.Module) -> Weights:
    """The weights of a backbone on a CPU where nothing (a hook, an adapter) changes what its modules compute."""
    for module in backbone.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise Unsupported(f"{type(module).__name__} has a hook")
        if module._parameters and not _is_plain(module) and module is not backbone:
            raise Unsupported(f"a layer is {type(module).__name__}")
    weights = Weights(backbone.named_parameters())
    if any(type(weight) is not nn.Parameter or weight.device.type != "cpu" for weight in weights.values()):
        raise Unsupported("a backbone that is not on a CPU")
    is_kept = any(weight.dtype == torch.bfloat16 for weight in weights.values())
    if is_kept and kind_of(backbone) not in DECODERS:  # the other forms make a copy of the weights
        raise Unsupported("weights that are kept in bfloat16")
    return weights


def _is_plain(module: nn.Module) -> bool:
    """Whether a module does what its name says: PyTorch's own, or the norm of one of the decoders."""
    kind = type(module)
    return kind in _PLAIN or (kind.__name__.endswith("RMSNorm") and kind.__module__.startswith("transformers.models."))


# what a module of a layer is for -> its name
_BERT = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "first_norm": "attention.output.LayerNorm", "up": "intermediate.dense",
    "down": "output.dense", "second_norm": "output.LayerNorm", "attention_dropout": "attention.self.dropout",
    "out_dropout": "attention.output.dropout", "down_dropout": "output.dropout",
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
_ROBERTA = ("roberta", "xlm-roberta", "camembert")
DECODERS = ("llama", "mistral", "qwen2", "qwen3")
FAMILIES = dict.fromkeys(("bert", "electra", *_ROBERTA), _BERT) | {"distilbert": _DISTILBERT, "mpnet": _MPNET}


def has_lean_form(kind: str) -> bool:
    """Whether there is a lean forward pass for this ``model_type`` with its own copy of the weights."""
    return kind in FAMILIES or kind == "modernbert"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What the lean forms must know of a backbone of BERT's family beside its weights."""

    heads: int
    activation: str
    eps: float
    first_position: int  # row of the position table that a text's first token takes
    layers: list[dict[str, str]]  # for each, what a module is for -> its whole name


def stack_of(backbone: Any) -> Stack:
    """Read off the configuration; raises ``Unsupported`` for another architecture, activation or position scheme."""
    kind, facts = kind_of(backbone), backbone.config
    if kind not in FAMILIES:
        raise Unsupported(f"architecture {kind}")
    is_decoder = getattr(facts, "is_decoder", False) or getattr(facts, "add_cross_attention", False)
    if is_decoder or getattr(facts, "position_embedding_type", "absolute") != "absolute":
        raise Unsupported("a decoder, or relative positions")
    is_distilbert = kind == "distilbert"
    home = "transformer.layer" if is_distilbert else "encoder.layer"
    # RoBERTa and MPNet count positions from behind the padding's id, which is always 1 in MPNet
    first_position = 2 if kind == "mpnet" else facts.pad_token_id + 1 if kind in _ROBERTA else 0
    return Stack(
        heads=facts.num_attention_heads, activation=known(facts.activation if is_distilbert else facts.hidden_act),
        eps=1e-12 if is_distilbert else facts.layer_norm_eps, first_position=first_position,
        layers=[{use: f"{home}.{number}.{name}" for use, name in FAMILIES[kind].items()}
                for number in range(facts.num_hidden_layers)],
    )


def known(activation: str) -> str:
    """The activation, where oneDNN has it."""
    if activation not in ("gelu", "relu"):
        raise Unsupported(f"activation {activation}")
    return activation


def position_table(weights: Weights, stack: Stack) -> Tensor:
    """What is added to the word vectors, by position from 0 on; every token has type 0, whose vector joins them."""
    table = weights["embeddings.position_embeddings.weight"][stack.first_position :]
    types = weights.get("embeddings.token_type_embeddings.weight")
    return table if types is None else table + types[0]
