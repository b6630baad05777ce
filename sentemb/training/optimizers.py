"""Optimizers: named parts over torch's own, and the groups of parameters that they move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import nn

from sentemb.errors import RecipeError
from sentemb.parts import NonNegative, Part, Positive

Decay = Annotated[float, Ge(0), Lt(1)]
Groups = list[dict[str, Any]]


class Optimizer(Part, room="optimizers"):
    """Makes a torch optimizer; one of your own subclasses this and implements ``build``."""

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer of parameter groups, each with its ``lr`` and ``weight_decay``.

        What ``state_dict`` holds of it, tensors and numbers, is saved in checkpoints.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    Args:
        betas: decay of the running means of the gradient and of its square.
        epsilon: added to the root of the second.
    Source: Loshchilov & Hutter 2019, ICLR, "Decoupled weight decay regularization", algorithm 2.
    Deviations: none.
    """

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    epsilon: Positive = 1e-8

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """Torch's; its fused kernel exists on CPU and CUDA alike."""
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.epsilon, fused=True)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent with momentum.

    Args:
        momentum: share of the last step that the next one keeps.
        nesterov: look ahead along the momentum.
    Source: Sutskever et al. 2013, ICML, "On the importance of initialization and momentum in deep learning".
    Deviations: as torch.optim.SGD.
    """

    momentum: Decay = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """Torch's."""
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov)


@dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """Adam without first moments, and with second moments of rows and columns only: hardly any memory.

    Args:
        clip: largest root mean square of an update.
    Source: Shazeer & Stern 2018, ICML, "Adafactor: Adaptive learning rates with sublinear memory cost".
    Deviations: as torch.optim.Adafactor; ``train.learning_rate`` is the largest relative step (0.01 in the paper).
    """

    clip: Positive = 1.0

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """Torch's."""
        return torch.optim.Adafactor(groups, d=self.clip)


PARTS: dict[str, type | str] = {"adafactor": Adafactor, "adamw": AdamW, "sgd": SGD}


def parameter_groups(
    objective: nn.Module, *, learning_rate: float, head_learning_rate: float | None, weight_decay: NonNegative
) -> Groups:
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
    return [
        {
            "params": parameters,
            "lr": learning_rate if is_backbone else head_learning_rate or learning_rate,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_backbone, decays), parameters in sorted(groups.items(), reverse=True)
    ]
