"""A pooling with weights, from outside: it trains, is saved and loaded, and no folder can have code imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from own_poolings import AttentionPooling

from sentemb import Encoder
from sentemb.encoder.poolings import Pooling, make_pooling
from sentemb.errors import ModelError, PartError
from sentemb.types import Tokens

TEXTS = ["the dog runs", "a cat plays music in the city", "two men made a river song", "x"]
OWN = "own_poolings:AttentionPooling"


@pytest.fixture
def encoder(tiny_bert: Path) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder.load(tiny_bert, pooling={"use": OWN, "heads": 2}, precision="fp32")
        torch.nn.init.normal_(encoder.module.pooling.score.weight)
    return encoder


def test_it_encodes_as_it_trains(encoder: Encoder) -> None:
    assert encoder.width == 64
    column = encoder.tokenise(TEXTS[1:2])
    ids = torch.from_numpy(column.flat.astype(np.int64))[None]
    pooled = encoder.module(Tokens(input_ids=ids, attention_mask=torch.ones_like(ids))).pooled
    torch.testing.assert_close(torch.from_numpy(encoder.encode(TEXTS))[1:2], pooled, rtol=1e-4, atol=1e-5)
    half = encoder.encode(TEXTS, precision="bf16", normalise=True)
    assert ((half * encoder.encode(TEXTS, normalise=True)).sum(1) > 0.99).all()
    encoder.module.train()
    encoder.module(Tokens(input_ids=ids, attention_mask=torch.ones_like(ids))).pooled.square().sum().backward()
    gradient = encoder.module.pooling.score.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_it_is_saved_with_settings_and_weights(encoder: Encoder, tmp_path: Path) -> None:
    folder = encoder.save(tmp_path / "model")
    again = Encoder.load(folder, precision="fp32")
    assert again.module.pooling == AttentionPooling(heads=2)
    np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    lean = Encoder.load(folder, precision="fp32")
    np.testing.assert_allclose(lean.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    assert again.digest() == lean.digest() == encoder.digest()
    with torch.no_grad():
        again.module.pooling.score.weight.add_(0.1)
    assert again.digest() != encoder.digest()


def test_a_folder_cannot_have_code_imported(encoder: Encoder, tmp_path: Path) -> None:
    folder = encoder.save(tmp_path / "model")
    code = ("import sys; from sentemb import Encoder; "
            "print(Encoder.load(sys.argv[1], trust_remote_code=len(sys.argv) > 2).width)")
    environment = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}

    def load(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, str(folder), *more], capture_output=True, text=True,
                              check=False, env=environment)

    refused = load()
    assert refused.returncode == 1
    assert "trust_remote_code=True" in refused.stderr
    assert load("trusted").stdout.strip() == "64"
    config = folder / "1_AttentionPooling" / "config.json"
    for table in ({"use": "os:system"}, {"use": "json:JSONDecoder"}, {}, {"use": OWN, "haeds": 2}):
        config.write_text(json.dumps(table))
        with pytest.raises(ModelError, match="AttentionPooling"):
            Encoder.load(folder)


def test_mistakes_are_named(tiny_bert: Path) -> None:
    for choice, message in (
        ("own_poolings:Nobody", "has no class Nobody"), ("json:JSONDecoder", "is no Pooling"),
        ({"use": OWN, "heads": "two"}, "heads"), ("no_such_module:X", "no module"),
    ):
        with pytest.raises(PartError, match=message):
            make_pooling(choice)
    with pytest.raises(ModelError, match="weights for 2 hidden layers; the backbone has 3"):
        Encoder.load(tiny_bert, pooling={"use": "layer_mean", "weights": [1.0, 2.0]})


@pytest.mark.parametrize(("pooling", "width"), [(AttentionPooling(heads=2), 64), (make_pooling("cls+mean"), 64)])
def test_a_recipe_trains_and_saves_it(pooling: Pooling, width: int, tiny_bert: Path, tmp_path: Path) -> None:
    from sentemb import Recipe, train
    from sentemb.recipe.recipe import EncoderSettings
    from sentemb.training.settings import TrainSettings

    named = Recipe.named("simcse-unsup-minilm")
    recipe = named.replace(
        encoder=EncoderSettings(backbone=str(tiny_bert), pooling=pooling),
        train=TrainSettings(max_steps=2, batch_size=4),
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    train(recipe, data=[{"text": f"{text} {i}"} for i in range(8) for text in TEXTS], output=tmp_path / "run")
    encoder = Encoder.load(tmp_path / "run" / "model")
    assert encoder.module.pooling == pooling
    assert encoder.encode(TEXTS).shape == (4, width)
