"""Callbacks: what happens beside training, one a file."""

from __future__ import annotations

from sentemb.training.callbacks.callback import Callback, CheckpointEvent, EndEvent, EvaluationEvent, StepEvent
from sentemb.training.callbacks.early_stopping import EarlyStopping
from sentemb.training.callbacks.time_limit import TimeLimit

PARTS: dict[str, type[Callback] | str] = {"early_stopping": EarlyStopping, "time_limit": TimeLimit}

__all__ = [
    "PARTS", "Callback", "CheckpointEvent", "EarlyStopping", "EndEvent", "EvaluationEvent", "StepEvent", "TimeLimit",
]
