"""What a recipe's tables make of encoder and data."""

from __future__ import annotations

from pathlib import Path

from sentemb import Recipe
from sentemb.recipe.train import build


def test_data_max_tokens_cuts_the_training_texts_and_leaves_the_model_alone(data_dir: Path, tiny_bert: Path, tmp_path):
    overrides = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}", "data.max_tokens=6"]
    plan = build(Recipe.load("simcse-unsup-minilm", overrides), tmp_path / "run")
    assert plan.dataset.columns["anchor"].lengths.max() == 6
    assert plan.encoder.max_tokens == 128
    assert plan.encoder.tokenise(["the " * 50]).lengths.tolist() == [52]
