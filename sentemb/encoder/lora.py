"""Low-rank adapters in a backbone, through peft; exported models have them merged and need no peft."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from torch import nn

from sentemb.errors import ModelError, first_line, needs_extra


@dataclass(frozen=True)
class Lora:
    """``W x + alpha / rank · B A x``: only A and B of the target layers learn.

    Attributes:
        rank: rows of A.
        alpha: factor of the update, times the rank.
        dropout: of the adapter's input.
        targets: ends of the names of the linear layers that get an adapter; query and value in the paper
            (section 7.1), by their names in BERT.

    Source: Hu et al. 2022, ICLR, "LoRA: Low-rank adaptation of large language models", equation 3.
    Deviations: none.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank = {self.rank}; must be at least 1")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha = {self.alpha}; must be above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}; must be at least 0 and below 1")
        if not self.targets:
            raise ValueError("targets = []; name one or more layers, e.g. query, value")


def add_lora(backbone: nn.Module, lora: Lora) -> None:
    """Put adapters into the backbone; everything else in it stops learning.

    Raises:
        MissingExtra: peft is not installed.
        ModelError: the backbone has no layers of these names.
    """
    needs_extra("peft", "peft")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), bias="none"
    )
    names = {name.rpartition(".")[2] for name, part in backbone.named_modules() if isinstance(part, nn.Linear)}
    missing = [target for target in lora.targets if target.rpartition(".")[2] not in names]
    if missing:
        raise ModelError(f"encoder.lora.targets: {type(backbone).__name__} has no linear layer {', '.join(missing)}; "
                         f"it has {', '.join(sorted(names))}")
    try:
        inject_adapter_in_model(config, backbone)
    except ValueError as error:
        raise ModelError(f"encoder.lora: {first_line(error)}") from error
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)


def has_lora(backbone: nn.Module) -> bool:
    """Whether there are adapters in it."""
    return any("lora_" in name for name, _ in backbone.named_parameters())


def merged(backbone: nn.Module) -> nn.Module:
    """The backbone itself where it has no adapters, else a copy with the adapters added to its weights."""
    if not has_lora(backbone):
        return backbone
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = copy.deepcopy(backbone)
    for name, layer in list(whole.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(whole.get_submodule(parent), child, layer.get_base_layer())
    return whole
