"""Adapters: few new weights that learn inside a backbone whose own stand still. Exported models have them merged, where
that is possible."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.four_bits import in_full, rounded_weights
from sentemb.errors import ModelError, first_line, needs_extra
from sentemb.parts import Count, Fraction, Part, Positive

# the layers of queries and values, or those that hold them, by the names of the usual architectures
_ATTENTION = (
    ("query", "value"), ("q_lin", "v_lin"), ("q_proj", "v_proj"), ("query_proj", "value_proj"), ("q", "v"), ("Wqkv",),
    ("qkv_proj",), ("query_key_value",), ("c_attn",),
)


class Adapter(Part, room="adapters"):
    """Few new weights inside a backbone."""

    def add_to(self, backbone: nn.Module) -> None:
        """Put the new weights into the backbone; everything else in it stops learning."""
        raise NotImplementedError

    def layers_in(self, matrices: Mapping[str, tuple[int, int]]) -> list[tuple[int, int]]:
        """Outputs and inputs of the linear layers that it keeps inputs of; ``matrices`` are a backbone's by name."""
        return []

    def parameters_in(self, matrices: Mapping[str, tuple[int, int]]) -> int:
        """How many new weights a backbone with these matrices gets."""
        return 0


class Lora(Adapter):
    """``W x + alpha / rank · B A x``: only A and B of the target layers learn.

    Args:
        rank: rows of A.
        alpha: factor of the update, times the rank.
        dropout: of the adapter's input.
        targets: ends of the names of the linear layers that get an adapter; ``all-linear``: every linear layer of the
            transformer. None named: queries and values, as in the paper (section 7.1).

    Source: Hu et al. 2022, ICLR, "LoRA: Low-rank adaptation of large language models", equation 3.
    Deviations: none.
    """

    def __init__(
        self, *, rank: Count = 8, alpha: Positive = 16.0, dropout: Fraction = 0.0,
        targets: tuple[str, ...] | Literal["all-linear"] = (),
    ) -> None:
        if dropout == 1:
            raise ValueError("dropout = 1: leaves nothing to learn from")
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, targets

    def add_to(self, backbone: nn.Module) -> None:
        """See ``Adapter``; raises ``ModelError`` where the backbone has no layers of these names."""
        needs_extra("peft", "peft")
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, bias="none",
            target_modules=self._layers_of(backbone),
        )
        try:
            inject_adapter_in_model(config, backbone)
        except ValueError as error:
            raise ModelError(f"LoRA: {first_line(error)}") from error
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if "lora_" in name:  # peft gives them the format of the weights that stand still, which may be bfloat16
                parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))

    def layers_in(self, matrices: Mapping[str, tuple[int, int]]) -> list[tuple[int, int]]:
        """See ``Adapter``."""
        linear = {name.removesuffix(".weight"): size for name, size in linear_layers(matrices).items()}
        ends = self._targets_among({name.rpartition(".")[2] for name in linear})
        return [size for name, size in linear.items()
                if self.targets == "all-linear" or any(f".{name}".endswith(f".{end}") for end in ends)]

    def parameters_in(self, matrices: Mapping[str, tuple[int, int]]) -> int:
        """See ``Adapter``."""
        return self.rank * sum(outputs + inputs for outputs, inputs in self.layers_in(matrices))

    def _targets_among(self, ends: Collection[str]) -> Sequence[str]:
        """The targets, given ends of the names of a backbone's linear layers; not those of all."""
        named = () if self.targets == "all-linear" else self.targets
        return named or next((known for known in _ATTENTION if set(ends).issuperset(known)), ())

    def _layers_of(self, backbone: nn.Module) -> list[str]:
        names = [name for name, part in backbone.named_modules() if isinstance(part, nn.Linear)]
        if self.targets == "all-linear":
            return names
        ends = {name.rpartition(".")[2] for name in names}
        targets = self._targets_among(ends)
        missing = [target for target in targets if target.rpartition(".")[2] not in ends]
        if missing or not targets:
            wanted = ", ".join(missing) or "known as the queries' or values'"
            raise ModelError(f"LoRA targets: {type(backbone).__name__} has no linear layer {wanted}; it has "
                             f'{", ".join(sorted(ends))}, or give "all-linear"')
        return list(targets)


def linear_layers(matrices: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Those of a backbone's matrices that are no embeddings."""
    return {name: size for name, size in matrices.items() if "embed" not in name}


def has_adapters(backbone: nn.Module) -> bool:
    return any("lora_" in name for name, _ in backbone.named_parameters())


def merged(backbone: nn.Module) -> nn.Module:
    """The backbone itself where it has no adapters, else a copy with the adapters added to its weights."""
    if not has_adapters(backbone):
        return backbone
    whole = copy.deepcopy(backbone)
    merge_into(whole)
    return whole


def merge_into(backbone: nn.Module) -> None:
    """Add the adapters of a backbone to its weights, and take them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(backbone.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, layer.get_base_layer())


def merged_state(backbone: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The weights of ``merged`` in ``dtype`` by name, sorted, each made in its turn: no copy of the backbone. Those in
    four bits are the matrices that they stand for."""
    from_adapters: dict[str, Any] = {}
    if has_adapters(backbone):
        from peft.tuners.tuners_utils import BaseTunerLayer

        from_adapters = {name: part for name, part in backbone.named_modules() if isinstance(part, BaseTunerLayer)}
    rounded = rounded_weights(backbone)
    scales = tuple(f"{name}." for name in rounded)  # stand behind the names of their weights
    stored = {name.replace(".base_layer.", "."): (name, value) for name, value in backbone.state_dict().items()
              if "lora_" not in name and not name.startswith(scales)}
    for name, (key, stored_value) in sorted(stored.items()):
        value = in_full(rounded[key]) if key in rounded else stored_value
        layer = from_adapters.get(key.removesuffix(".base_layer.weight"))
        whole = value if layer is None else value + sum(map(layer.get_delta_weight, layer.active_adapters))
        yield name, whole.to(dtype) if whole.is_floating_point() else whole


class Prefix(Adapter):
    """Trained keys and values stand before those of a text in every layer's attention; nothing else learns:

        attention(Q, [drop(P_K); K], [drop(P_V); V])      P_K, P_V of every layer: (length, d), from N(0, 0.02²)

    Queries, outputs and positions are the text's alone, so every pooling works as before. Padding stays masked, the
    prefix never is. The lean forward passes step aside. For BERT, RoBERTa, XLM-RoBERTa, CamemBERT and ELECTRA.

    A prefix is not merged: no weight of a plain backbone does what it does. ``Encoder.save`` writes it beside the
    weights, sentemb loads it again, sentence-transformers refuses the folder by name.

    Args:
        length: keys and values a layer; PromCSE has 10 to 16.
        dropout: of their entries, drawn for every text anew; PromCSE takes the rate of the backbone's hidden states.

    Source: Jiang, Zhang & Wang 2022, Findings of EMNLP (PromCSE), released code; Li & Liang 2021, ACL, "Prefix-tuning".
    Deviations: no two-layer map of P (PromCSE's default has none either); positions count from the text's first
        token, where the releases that PromCSE was written for may count the prefix too.
    """

    def __init__(self, *, length: Count = 16, dropout: Fraction = 0.1) -> None:
        if dropout == 1:
            raise ValueError("dropout = 1: leaves nothing to learn from")
        self.length, self.dropout = length, dropout

    def parameters_in(self, matrices: Mapping[str, tuple[int, int]]) -> int:
        """See ``Adapter``."""
        return 2 * self.length * sum(outputs for name, (outputs, _) in matrices.items() if name.endswith("key.weight"))

    def add_to(self, backbone: nn.Module) -> None:
        """See ``Adapter``; raises ``ModelError`` where the attention takes no further keys, or has a prefix already."""
        config: Any = backbone.config
        attentions: list[Any] = [part for part in backbone.modules() if _takes_keys(part)]
        if not attentions or getattr(config, "is_decoder", False):
            raise ModelError(f"the adapter prefix: the attention of {type(backbone).__name__} takes no keys beside a "
                             "text's; those of BERT, RoBERTa, XLM-RoBERTa, CamemBERT and ELECTRA do")
        if prefix_weights(backbone):
            raise ModelError("the adapter prefix: the backbone has a prefix already; train that one on (leave the "
                             "adapter out, and all weights learn), or start from a backbone without")
        for attention in attentions:
            prefix = LayerPrefix(length=self.length, width=attention.key.out_features, dropout=self.dropout)
            weight = attention.key.weight
            attention.prefix = prefix.to(weight.device, torch.promote_types(weight.dtype, torch.float32))
            attention.register_forward_pre_hook(attention.prefix.enter, with_kwargs=True)
        learning = prefix_weights(backbone)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in learning)

    @classmethod
    def load(cls, *_: object, **__: object) -> NoReturn:
        """What sentence-transformers calls for a module of a folder."""
        raise ModelError("this model has trained keys and values before every layer's attention (the adapter prefix), "
                         "which sentence-transformers cannot run; open it with sentemb.Encoder.load")


class LayerPrefix(nn.Module):
    """One layer's trained keys and values, which enter its attention as transformers' cache of past ones does."""

    def __init__(self, *, length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.keys, self.values = (nn.Parameter(torch.randn(length, width) * 0.02) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def enter(self, attention: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Before the attention runs: stand in for its cache, and let every token see the prefix."""
        mask = named.get("attention_mask")
        if mask is not None:
            visible = 1 if mask.dtype == torch.bool else 0  # the others are added to scores
            mask = F.pad(mask, (len(self.keys), 0), value=visible)
        return arguments, {**named, "attention_mask": mask, "past_key_values": self}

    def update(
        self, keys: Float[Tensor, "b h t w"], values: Float[Tensor, "b h t w"], *_: object
    ) -> tuple[Float[Tensor, "b h s w"], Float[Tensor, "b h s w"]]:
        """The keys and values of texts behind the prefix's."""
        return self._before(self.keys, keys), self._before(self.values, values)

    def _before(self, own: Tensor, of_texts: Tensor) -> Tensor:
        rows, heads, _, width = of_texts.shape
        dropped = self.dropout(own.to(of_texts.dtype).expand(rows, -1, -1))
        return torch.cat([dropped.view(rows, -1, heads, width).transpose(1, 2), of_texts], dim=2)


def _takes_keys(attention: nn.Module) -> bool:
    """Whether it is a self-attention of BERT's kind that lets a cache put keys and values before its own."""
    has_layers = all(isinstance(getattr(attention, name, None), nn.Linear) for name in ("query", "key", "value"))
    return has_layers and "past_key_values" in inspect.signature(attention.forward).parameters


def prefix_weights(backbone: nn.Module) -> Mapping[str, Tensor]:
    """The weights of the backbone's prefix by name; none where it has no prefix."""
    layers = {name: part for name, part in backbone.named_modules() if isinstance(part, LayerPrefix)}
    return {f"{home}.{name}": value for home, part in layers.items() for name, value in part.state_dict().items()}


def state_without_prefix(backbone: nn.Module) -> dict[str, Tensor]:
    """The weights of the backbone proper by name."""
    prefix = prefix_weights(backbone)
    return {name: value for name, value in backbone.state_dict().items() if name not in prefix}


def prefix_of(backbone: nn.Module) -> Prefix | None:
    """The settings of the backbone's prefix, where it has one."""
    layer = next((part for part in backbone.modules() if isinstance(part, LayerPrefix)), None)
    return None if layer is None else Prefix(length=len(layer.keys), dropout=layer.dropout.p)


PARTS: dict[str, type[Adapter]] = {"lora": Lora, "prefix": Prefix}
