"""What a training run is made of, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentemb.encoder import Encoder
from sentemb.training.callbacks import Callback
from sentemb.training.objective import Objective
from sentemb.training.services import EncoderCache
from sentemb.training.settings import TrainSettings
from sentemb.types import DevScores, Examples
from sentemb.views.view import ViewCopy, ViewMaker


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a ``Run`` needs: built, with nothing left to decide. ``recipe.build`` makes it from a recipe."""

    encoder: Encoder
    encoders: EncoderCache
    objective: Objective
    dataset: Examples
    maker: ViewMaker
    copies: Sequence[ViewCopy]
    settings: TrainSettings
    run_dir: Path
    recipe: Mapping[str, Any]  # the resolved recipe, for trackers
    recipe_hash: str
    dev: Callable[[Encoder], DevScores] | None = None
    callbacks: Sequence[Callback] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # name -> text, written into the run folder at the start


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where a finished run left its model, and how it went."""

    model_dir: Path
    run_dir: Path
    steps: int
    seconds: float  # of all the legs of a run that was resumed
    examples_per_second: float
    best_score: float | None
    best_step: int | None
    last_losses: Mapping[str, float]
    skipped_steps: int = 0
