"""Schedules: how the learning rate changes, as named parts over torch's ``LambdaLR``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sentemb.parts import Fraction, Part


class Schedule(Part, room="schedules"):
    """The learning rate as a factor of ``train.learning_rate``; one of your own subclasses this."""

    def factor(self, progress: float) -> float:
        """The factor when ``progress``, from 0 to 1, of the steps after the warm-up are done."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The learning rate stays.

    Source: none.
    Deviations: none.
    """

    def factor(self, progress: float) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """The learning rate falls in a straight line.

    Args:
        end: factor at the end.
    Source: Devlin et al. 2019, NAACL, "BERT", appendix A.2.
    Deviations: none.
    """

    end: Fraction = 0.0

    def factor(self, progress: float) -> float:
        """From 1 to ``end``."""
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
        """From 1 to ``end``."""
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
        """1, then down to 0."""
        return min(1.0, (1.0 - progress) / self.decay_fraction) if self.decay_fraction else 1.0


PARTS: dict[str, type | str] = {
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
