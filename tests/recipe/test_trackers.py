"""Losses and dev scores reach accelerate's trackers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sentemb import Recipe, train
from sentemb.errors import MissingExtra
from sentemb.recipe.load import read_tree


@pytest.fixture
def overrides(on_tiny_model, data_dir: Path) -> list[str]:
    tree, _ = read_tree("simcse-unsup-minilm")
    dev = f'dev=[{{ use = "sts", path = "{data_dir / "dev.tsv"}" }}]'
    return [*on_tiny_model(tree), dev, "train.eval_every=1", "train.log_every=1"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_losses_and_dev_scores(overrides, tmp_path):
    pytest.importorskip("tensorboard", reason='pip install "sentemb[trackers]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(Recipe.load("simcse-unsup-minilm", [*overrides, 'train.trackers=["tensorboard"]']), output=tmp_path / "run")
    folder = next((tmp_path / "run").rglob("events.out.*")).parent
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [entry.step for entry in events.Scalars("loss/info_nce")] == [1, 2]
    assert [entry.step for entry in events.Scalars("dev")] == [1, 2]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_missing_tracker_names_the_extra(overrides, tmp_path):
    with pytest.raises(MissingExtra, match=r"sentemb\[trackers\]"):
        train(Recipe.load("simcse-unsup-minilm", [*overrides, 'train.trackers=["wandb"]']), output=tmp_path / "run")
