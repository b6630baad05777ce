"""Stop when the dev score no longer rises."""

from __future__ import annotations

from dataclasses import dataclass

from sentemb.parts import Count
from sentemb.training.callbacks.callback import Callback, EvaluationEvent


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Callback):
    """Ends training after ``patience`` evaluations in a row without a better score; ``train.patience`` makes one.

    Args:
        patience: evaluations; the best model is kept in any case.
    Source: Prechelt 1998, "Early stopping – but when?", criterion UP.
    Deviations: none.
    """

    patience: Count

    def on_evaluation(self, event: EvaluationEvent) -> str | None:
        """Say so when patience is lost."""
        if event.evaluations_since_best < self.patience:
            return None
        return f"early stop: {event.evaluations_since_best} evaluations without a better dev score"
