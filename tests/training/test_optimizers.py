from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from part_examples import tree_of
from rank_work import open_run

from sentemb.parts import PartError, room
from sentemb.training.optimizers import (
    SGD,
    Adafactor,
    AdamW,
    Constant,
    Cosine,
    Linear,
    Schedule,
    StableThenDecay,
    parameter_groups,
    rate_factor,
)
from sentemb.training.settings import TrainSettings

OPTIMIZERS: list[dict[str, Any]] = [
    {"use": "adamw", "betas": [0.8, 0.9]}, {"use": "sgd"}, {"use": "sgd", "momentum": 0.0}, {"use": "adafactor"},
]


def test_every_optimizer_has_a_case() -> None:
    assert {entry["use"] for entry in OPTIMIZERS} == set(room("optimizers").names())


def test_parameter_groups(still_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    tree = tree_of("heads", "mlp", str(still_bert), str(pairs_file))
    objective = open_run(tree, str(tmp_path), dtype=torch.float32).plan.objective
    groups = parameter_groups(objective, learning_rate=1e-3, head_learning_rate=0.5, weight_decay=0.1)
    assert sum(len(group["params"]) for group in groups) == len(list(objective.parameters()))
    rates = {(group["lr"], group["weight_decay"]) for group in groups}
    assert rates == {(1e-3, 0.1), (1e-3, 0.0), (0.5, 0.1), (0.5, 0.0)}
    for group in groups:
        assert all(parameter.ndim >= 2 for parameter in group["params"]) == (group["weight_decay"] > 0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=json.dumps)
def test_a_resumed_run_equals_one_that_was_not_stopped(
    optimizer: dict[str, Any], tiny_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    tree = tree_of("heads", "mlp", str(tiny_bert), str(pairs_file), max_steps=5, epochs=20, optimizer=optimizer)

    def trained(run: Any, steps: int) -> Any:
        for batches in itertools.islice(run.inputs(), steps):
            run.train_step(batches)
        return run

    whole = trained(open_run(tree, str(tmp_path / "whole"), dtype=torch.float32), 5)
    start = {name: value.clone() for name, value in whole.plan.objective.state_dict().items()}
    trained(open_run(tree, str(tmp_path / "run"), dtype=torch.float32), 2).save()
    resumed = trained(open_run(tree, str(tmp_path / "run"), dtype=torch.float32, resume=True), 5)
    assert resumed.state.step == whole.state.step == 5
    weights, wanted = resumed.plan.objective.state_dict(), whole.plan.objective.state_dict()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert whole.state.examples == resumed.state.examples == 5 * 7
    assert start.keys() == wanted.keys()


def test_wrong_optimizers_are_refused_in_one_way(still_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    for make, message in (
        (lambda: AdamW(betas=(1.0, 1.0)), r"betas\[0\] = 1.0: must be less than 1"),
        (lambda: SGD(momentum=0.0, nesterov=True), "nesterov needs a momentum"),
        (lambda: room("optimizers").make({"use": "adamm"}), "did you mean adamw"),
        (lambda: Adafactor(clip=float("inf")), "finite"),
    ):
        with pytest.raises(PartError, match=message):
            make()
    for wrong in ({"learning_rate": float("inf")}, {"weight_decay": float("nan")}, {"optimizer": "adam"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TrainSettings(**wrong)


# ------------------------------------------------------------------------------------------------ schedules
@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), [1, 1, 1]), (Linear(), [1, 0.5, 0]), (Linear(end=0.2), [1, 0.6, 0.2]),
        (Cosine(), [1, 0.5, 0]), (Cosine(end=0.5), [1, 0.75, 0.5]),
        (StableThenDecay(decay_fraction=0.25), [1, 1, 0]), (StableThenDecay(decay_fraction=1), [1, 0.5, 0]),
        (StableThenDecay(decay_fraction=0), [1, 1, 1]),
    ],
    ids=repr,
)
def test_factors_by_hand(schedule: Schedule, factors: list[float]) -> None:
    assert [schedule.factor(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(factors)


def test_every_schedule_has_a_case() -> None:
    assert {Constant, Linear, Cosine, StableThenDecay} == set(room("schedules").classes().values())


def test_warm_up_comes_first() -> None:
    factor = rate_factor(Cosine(), warmup_fraction=0.2, total_steps=10)
    assert [round(factor(step), 3) for step in (0, 1, 2, 6, 10)] == [0.333, 0.667, 1.0, 0.5, 0.0]


def test_settings_take_parts_by_name_table_and_value() -> None:
    for value in ("cosine", {"use": "cosine"}, Cosine()):
        assert TrainSettings(schedule=value).schedule == Cosine()
