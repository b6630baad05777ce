"""Callbacks: what a run calls beside training, and what it tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from sentemb.parts import Count, Part


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """An optimiser step is done."""

    step: int  # from 1
    total_steps: int
    losses: Mapping[str, Tensor]  # by term, on the device: reading one waits for the step; empty where it was skipped
    learning_rate: float
    gradient_norm: Tensor | None = None  # before it was clipped, on the device; None where nothing is clipped
    examples: Mapping[str, int] = field(default_factory=dict)  # of the step, by source of a mixture


@dataclass(frozen=True, kw_only=True)
class EvaluationEvent:
    """The model was evaluated."""

    step: int
    score: float  # the mean of ``scores``, or the one that the recipe chose
    scores: Mapping[str, float]  # by task
    is_best: bool
    evaluations_since_best: int


@dataclass(frozen=True, kw_only=True)
class CheckpointEvent:
    """A checkpoint was saved."""

    step: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class EndEvent:
    """Training ended and the model was exported."""

    step: int
    model_dir: Path
    stopped: str | None  # why it ended before its last step


class Callback(Part, room="callbacks"):
    """What happens beside training: override what you need. Only the first device calls it.

    A method that returns a sentence stops training after the step at hand, as if it had been the last one; the sentence
    is the reason that the user reads. A callback keeps no state that must survive ``--resume``: the run's own state
    (best score, evaluations since then) is in the events.
    """

    def on_step(self, event: StepEvent) -> str | None:
        """After every optimiser step."""

    def on_evaluation(self, event: EvaluationEvent) -> str | None:
        """After every evaluation."""

    def on_checkpoint(self, event: CheckpointEvent) -> str | None:
        """After every checkpoint."""

    def on_end(self, event: EndEvent) -> None:
        """After the last step, when the model is exported."""


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Callback):
    """Ends training after ``patience`` evaluations in a row without a better score; ``train.patience`` makes one.

    Args:
        patience: evaluations; the best model is kept in any case.
    Source: Prechelt 1998, "Early stopping – but when?", criterion UP.
    """

    patience: Count

    def on_evaluation(self, event: EvaluationEvent) -> str | None:
        if event.evaluations_since_best < self.patience:
            return None
        return f"early stop: {event.evaluations_since_best} evaluations without a better dev score"


PARTS: dict[str, type | str] = {"early_stopping": EarlyStopping}
