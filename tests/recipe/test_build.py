"""What a recipe's tables make of encoder and data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sentemb import Encoder, Recipe, train
from sentemb.errors import RecipeError
from sentemb.recipe.train import build


def test_data_max_tokens_cuts_the_training_texts_and_leaves_the_model_alone(
    data_dir: Path, tiny_bert: Path, tmp_path, caplog
):
    caplog.set_level("INFO", "sentemb")
    overrides = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}", "data.max_tokens=6"]
    plan = build(Recipe.load("simcse-unsup-minilm", overrides), tmp_path / "run")
    lengths = plan.dataset.columns["anchor"].lengths
    assert lengths.max() == 6
    assert f"{(lengths == 6).sum()} texts fill all of their 6 tokens" in caplog.text
    assert plan.encoder.max_tokens == 128
    assert plan.encoder.tokenise(["the " * 50]).lengths.tolist() == [52]


@pytest.mark.parametrize(
    ("frozen", "moves"),
    [("true", []), ('["embeddings"]', ["encoder"]), ('["embeddings", "encoder.layer.0"]', ["encoder.layer.1"])],
)
def test_frozen_modules_stay_as_they_are(frozen: str, moves: list[str], data_dir: Path, tiny_bert: Path, tmp_path):
    overrides = [
        f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}", f"encoder.freeze={frozen}",
        "train.max_steps=1", "train.batch_size=8", "train.precision=fp32",
    ]
    recipe = Recipe.load("simcse-unsup-minilm", overrides)
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    before = Encoder.load(tiny_bert).module.backbone.state_dict()
    after = Encoder.load(train(recipe, output=tmp_path / "run").model_dir).module.backbone.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert bool(changed) == bool(moves)
    assert all(name.startswith(tuple(moves)) for name in changed)


@pytest.mark.parametrize(("frozen", "layers"), [("false", "01"), ('["encoder.layer.0"]', "1"), ("true", "")])
def test_frozen_modules_keep_their_adapters(frozen: str, layers: str, data_dir: Path, tiny_bert: Path, tmp_path):
    overrides = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}", f"encoder.freeze={frozen}"]
    backbone = build(Recipe.load("promcse-minilm", overrides), tmp_path / "run").encoder.module.backbone
    learning = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    kinds = ("keys", "values")
    assert learning == {f"encoder.layer.{i}.attention.self.prefix.{kind}" for i in layers for kind in kinds}


def test_a_module_that_is_not_there_cannot_be_frozen(data_dir: Path, tiny_bert: Path, tmp_path):
    overrides = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}", 'encoder.freeze=["layers"]']
    with pytest.raises(RecipeError, match=r'no module "layers"; it has embeddings, encoder'):
        build(Recipe.load("simcse-unsup-minilm", overrides), tmp_path / "run")
    with pytest.raises(RecipeError, match="freeze"):
        Recipe.load("simcse-unsup-minilm", ["encoder.freeze=embeddings"])
