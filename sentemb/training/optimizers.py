"""How weights move: optimizers over torch's own, the groups of parameters that they move, and rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import nn

from sentemb.errors import RecipeError
from sentemb.parts import Fraction, Part, Positive

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
    """

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    epsilon: Positive = 1e-8

    def build(self, groups: Groups) -> torch.optim.Optimizer:
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
        return torch.optim.Adafactor(groups, d=self.clip)


PARTS: dict[str, type | str] = {"adafactor": Adafactor, "adamw": AdamW, "sgd": SGD}


def parameter_groups(
    objective: nn.Module, *, learning_rate: float, head_learning_rate: float | None, weight_decay: float
) -> Groups:
    """Backbone and the rest, each with and without weight decay (biases and norms have none)."""
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in objective.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            is_backbone = module_name.startswith("encoder.backbone")
            decays = parameter.ndim >= 2 and not isinstance(module, nn.LayerNorm) and name != "bias"
            rate = learning_rate if is_backbone else head_learning_rate or learning_rate
            group = {"params": [], "lr": rate, "weight_decay": weight_decay if decays else 0.0}
            groups.setdefault((is_backbone, decays), group)["params"].append(parameter)
    if not groups:
        raise RecipeError("nothing is trainable: every parameter is frozen")
    return [group for _, group in sorted(groups.items(), key=lambda entry: entry[0], reverse=True)]


class Schedule(Part, room="schedules"):
    """The learning rate as a factor of ``train.learning_rate``; one of your own subclasses this."""

    def factor(self, progress: float) -> float:
        """The factor when ``progress``, from 0 to 1, of the steps after the warm-up are done."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The learning rate stays."""

    def factor(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """The learning rate falls in a straight line.

    Args:
        end: factor at the end.
    Source: Devlin et al. 2019, NAACL, "BERT", appendix A.2.
    """

    end: Fraction = 0.0

    def factor(self, progress: float) -> float:
        return 1.0 - progress * (1.0 - self.end)


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """The learning rate falls along half a cosine.

    Args:
        end: factor at the end.
    Source: Loshchilov & Hutter 2017, ICLR, "SGDR: Stochastic gradient descent with warm restarts", equation 5.
    Deviations: no restarts.
    """

    end: Fraction = 0.0

    def factor(self, progress: float) -> float:
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True, kw_only=True)
class StableThenDecay(Schedule):
    """The learning rate stays, then falls in a straight line to 0.

    Args:
        decay_fraction: share of the steps after the warm-up in which it falls.
    Source: Hu et al. 2024, COLM, "MiniCPM", section 4 (warmup-stable-decay).
    Deviations: a line instead of an exponential.
    """

    decay_fraction: Fraction = 0.1

    def factor(self, progress: float) -> float:
        return min(1.0, (1.0 - progress) / self.decay_fraction) if self.decay_fraction else 1.0


SCHEDULES: dict[str, type | str] = {
    "constant": Constant, "cosine": Cosine, "linear": Linear, "stable_then_decay": StableThenDecay,
}


def rate_factor(schedule: Schedule, *, warmup_fraction: float, total_steps: int) -> Callable[[int], float]:
    """The factor of step 0, 1, …: a linear warm-up, then the schedule."""
    warmup = round(warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return schedule.factor(min((step - warmup) / max(total_steps - warmup, 1), 1.0))

    return factor
