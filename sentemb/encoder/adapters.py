"""Adapters: few new weights that learn inside a backbone whose own stand still; exported models have them merged."""

from __future__ import annotations

import copy
from typing import Literal

from torch import nn

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

    def _layers_of(self, backbone: nn.Module) -> list[str]:
        names = [name for name, part in backbone.named_modules() if isinstance(part, nn.Linear)]
        if self.targets == "all-linear":
            return names
        ends = {name.rpartition(".")[2] for name in names}
        targets = self.targets or next((known for known in _ATTENTION if ends.issuperset(known)), ())
        missing = [target for target in targets if target.rpartition(".")[2] not in ends]
        if missing or not targets:
            wanted = ", ".join(missing) or "known as the queries' or values'"
            raise ModelError(f"LoRA targets: {type(backbone).__name__} has no linear layer {wanted}; it has "
                             f'{", ".join(sorted(ends))}, or give "all-linear"')
        return list(targets)


def has_adapters(backbone: nn.Module) -> bool:
    return any("lora_" in name for name, _ in backbone.named_parameters())


def merged(backbone: nn.Module) -> nn.Module:
    """The backbone itself where it has no adapters, else a copy with the adapters added to its weights."""
    if not has_adapters(backbone):
        return backbone
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = copy.deepcopy(backbone)
    for name, layer in list(whole.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(whole.get_submodule(parent), child, layer.get_base_layer())
    return whole


PARTS: dict[str, type[Adapter]] = {"lora": Lora}
