"""Stop when the time is up."""

from __future__ import annotations

import time

from sentemb.parts import Positive
from sentemb.training.callbacks.callback import Callback, StepEvent


class TimeLimit(Callback):
    """Ends training after so many minutes of this process, with a model and a checkpoint.

    Args:
        minutes: from when training starts; tokenising and loading are not counted.
    Source: none.
    Deviations: none.
    """

    def __init__(self, *, minutes: Positive) -> None:
        self.minutes = minutes
        self._end: float | None = None

    def on_step(self, event: StepEvent) -> str | None:
        """Say so when the time is up."""
        if self._end is None:
            self._end = time.monotonic() + 60 * self.minutes
        return f"time limit: {self.minutes:g} minutes are over" if time.monotonic() > self._end else None
