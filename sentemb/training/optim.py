"""Optimiser, parameter groups and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from sentemb.errors import RecipeError
from sentemb.training.settings import TrainSettings


def parameter_groups(objective: nn.Module, settings: TrainSettings) -> list[dict[str, object]]:
    """Backbone and the rest, each with and without weight decay (biases and norms have none)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for module_name, module in objective.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_backbone = module_name.startswith("encoder.backbone")
            decays = parameter.ndim >= 2 and not isinstance(module, nn.LayerNorm) and name != "bias"
            groups.setdefault((is_backbone, decays), []).append(parameter)
    if not groups:
        raise RecipeError("nothing is trainable: every parameter is frozen")
    rest = settings.head_learning_rate or settings.learning_rate
    return [
        {
            "params": parameters,
            "lr": settings.learning_rate if is_backbone else rest,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (is_backbone, decays), parameters in sorted(groups.items(), reverse=True)
    ]


def build_optimizer(objective: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW; the fused kernel exists on CPU and CUDA alike."""
    return torch.optim.AdamW(
        parameter_groups(objective, settings),
        betas=settings.adam_betas,
        eps=settings.adam_epsilon,
        fused=True,
    )


def rate_factor(settings: TrainSettings, total_steps: int) -> Callable[[int], float]:
    """Learning-rate factor of step 0, 1, …: linear warm-up, then linear or cosine decay to zero, or constant."""
    warmup = round(settings.warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        if settings.schedule == "linear":
            return 1.0 - done
        if settings.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
        return 1.0

    return factor


def build_schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings, total_steps: int) -> LambdaLR:
    """The schedule as torch keeps it."""
    return LambdaLR(optimizer, rate_factor(settings, total_steps))
