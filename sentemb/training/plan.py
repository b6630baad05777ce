"""A training run as the loop sees it: everything built, nothing left to decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentemb.encoder import Encoder
from sentemb.training.objective import Objective
from sentemb.training.services import EncoderShelf
from sentemb.training.settings import TrainSettings
from sentemb.types import Examples, ViewContext, ViewMaker, Views


@dataclass(frozen=True)
class Plan:
    """What ``recipe.build`` makes and ``train.loop.run`` runs."""

    encoder: Encoder
    shelf: EncoderShelf
    objective: Objective
    dataset: Examples
    maker: ViewMaker
    copies: Sequence[Callable[[Views, ViewContext], Views]]
    settings: TrainSettings
    run_dir: Path
    recipe: Mapping[str, Any]  # the resolved recipe, as written into the run folder
    recipe_hash: str
    dev: Callable[[Encoder], float] | None = None  # higher is better
    dev_name: str = "dev"
    facts: Mapping[str, Any] = field(default_factory=dict)  # data hash, rows, … for run.json


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run left its model, and how it went."""

    model_dir: Path
    run_dir: Path
    steps: int
    seconds: float
    examples_per_second: float
    best_score: float | None
    best_step: int | None
    last_losses: Mapping[str, float]
    skipped_steps: int = 0
