"""Callbacks: what happens beside training, one a file."""

from __future__ import annotations

from sentemb.training.callbacks.callback import Callback, CheckpointEvent, EndEvent, EvaluationEvent, StepEvent
from sentemb.training.callbacks.early_stopping import EarlyStopping

PARTS: dict[str, type[Callback] | str] = {"early_stopping": EarlyStopping}

__all__ = ["PARTS", "Callback", "CheckpointEvent", "EarlyStopping", "EndEvent", "EvaluationEvent", "StepEvent"]
