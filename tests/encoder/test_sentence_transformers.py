"""Folders go back and forth between sentemb and sentence-transformers, and give the same vectors."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.encoder.poolings import PARTS

TEXTS = ["the dog runs", "a cat plays music in the city", "Two men made a river song.", "x", "", "the dog runs"]
# those left out need settings, or are not theirs
NAMED = sorted(set(PARTS) - {"layer_mean", "joined", "mean_words", "mask", "masked_lm_mean"})
THEIRS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
TOLERANCE = 2e-6


@pytest.fixture(autouse=True)
def _quiet() -> object:
    # sentence-transformers warns of its own older names when it opens older folders
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def theirs(folder: Path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def same(ours: np.ndarray, other: np.ndarray) -> None:
    assert ours.shape == other.shape
    np.testing.assert_allclose(ours, other, atol=TOLERANCE * max(1.0, np.abs(other).max()), rtol=0)


@pytest.mark.parametrize("pooling", [*NAMED, "cls+mean", "mean+cls"])
def test_they_open_what_we_save(tiny_bert: Path, tmp_path: Path, pooling: str) -> None:
    encoder = Encoder.load(tiny_bert, pooling=pooling, precision="fp32")
    folder = encoder.save(tmp_path / "model")
    same(encoder.encode(TEXTS), theirs(folder).encode(TEXTS))
    same(encoder.encode(TEXTS), Encoder.load(folder, precision="fp32").encode(TEXTS))


@pytest.mark.parametrize("pooling", THEIRS)
def test_we_open_what_they_save(tiny_bert: Path, tmp_path: Path, pooling: str) -> None:
    from sentence_transformers import SentenceTransformer, models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformer = models.Transformer(str(tiny_bert), max_seq_length=12)
    model = SentenceTransformer(
        modules=[transformer, models.Pooling(32, pooling_mode=pooling)], device="cpu",
        prompts={"query": "the man and ", "none": ""}, default_prompt_name="query",
    )
    folder = tmp_path / "model"
    model.save(str(folder))
    encoder = Encoder.load(folder, precision="fp32")
    long = [*TEXTS, "the dog " * 40]
    assert encoder.max_tokens == 12
    assert encoder.prompts["query"] == "the man and "
    same(encoder.encode(long), model.encode(long))
    same(encoder.encode(long, prompt_name="none"), model.encode(long, prompt_name="none"))
    same(encoder.encode(long, prompt="a cat "), model.encode(long, prompt="a cat "))


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("pooling", THEIRS)
def test_prompts_may_be_left_out_of_the_pooling(
    tiny_bert: Path, tmp_path: Path, pooling: str, include_prompt: bool
) -> None:
    from sentence_transformers import SentenceTransformer, models

    modules = [models.Transformer(str(tiny_bert)), models.Pooling(32, pooling, include_prompt=include_prompt)]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save(str(tmp_path / "model"))
    encoder = Encoder.load(tmp_path / "model", precision="fp32")
    same(encoder.encode(TEXTS, prompt="the man and "), model.encode(TEXTS, prompt="the man and "))
    again = Encoder.load(encoder.save(tmp_path / "again"), precision="fp32")
    same(encoder.encode(TEXTS, prompt="the man and "), again.encode(TEXTS, prompt="the man and "))


def test_dense_layer_norm_and_normalize(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer, models

    torch.manual_seed(3)
    modules = [
        models.Transformer(str(tiny_bert)), models.Pooling(32, "mean"),
        models.Dense(32, 24, activation_function=torch.nn.GELU()),
        models.Dense(24, 24, bias=False, activation_function=torch.nn.Identity(), use_residual=True),
        models.Dense(24, 16, use_residual=True), models.LayerNorm(16), models.Dropout(0.5), models.Normalize(),
    ]
    model = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="dot")
    model.eval()
    model.save(str(tmp_path / "theirs"))
    encoder = Encoder.load(tmp_path / "theirs", precision="fp32")
    assert (encoder.width, encoder.is_normalised, encoder.similarity_name) == (16, True, "dot")
    same(encoder.encode(TEXTS), model.encode(TEXTS))
    folder = encoder.save(tmp_path / "ours")
    same(encoder.encode(TEXTS), theirs(folder).encode(TEXTS))
    assert Encoder.load(folder).digest() == encoder.digest()


@pytest.mark.parametrize("head", ["mlp", "projector", {"use": "dense", "out_features": 8, "activation": "relu"}])
def test_kept_heads_become_dense_modules(tiny_bert: Path, tmp_path: Path, head: object) -> None:
    options = {"use": head} if isinstance(head, str) else head
    encoder = Encoder.load(tiny_bert, head=options | {"train_only": False}, precision="fp32")
    # BatchNorm's running statistics must be worth folding
    encoder.module.train()
    for _ in range(3):
        encoder.module.project(torch.randn(16, 32) * 3 + 1)
    encoder.module.eval()
    folder = encoder.save(tmp_path / "model")
    same(encoder.encode(TEXTS), theirs(folder).encode(TEXTS))


def test_train_only_heads_are_left_out(tiny_bert: Path, tmp_path: Path) -> None:
    bare = Encoder.load(tiny_bert, pooling="cls", precision="fp32")
    headed = Encoder.load(tiny_bert, pooling="cls", head={"use": "mlp", "train_only": True}, precision="fp32")
    folder = headed.save(tmp_path / "model")
    assert [m["type"].rsplit(".")[-1] for m in json.loads((folder / "modules.json").read_text())] == [
        "Transformer", "Pooling"]
    same(bare.encode(TEXTS), headed.encode(TEXTS))
    assert bare.digest() == headed.digest() == Encoder.load(folder).digest()


def test_lower_casing_of_the_older_configuration(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_bert, precision="fp32")
    folder = encoder.save(tmp_path / "model")
    # a cased tokenizer with sentence-transformers' do_lower_case
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {
        "tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": True}))
    texts = ["The DOG Runs", "A Cat Plays MUSIC"]
    ours = Encoder.load(folder, precision="fp32")
    same(ours.encode(texts), ours.encode([text.lower() for text in texts]))
    same(ours.encode(texts), theirs(folder).encode(texts))
    again = Encoder.load(ours.save(tmp_path / "again"), precision="fp32")
    same(again.encode(texts), ours.encode(texts))


def test_the_real_model_both_ways(minilm: Path, tmp_path: Path) -> None:
    texts = ["A man is playing a guitar.", "Somebody makes music.", "Stock prices fell sharply on Monday. " * 30]
    model = theirs(minilm)
    encoder = Encoder.load(minilm, precision="fp32")
    for other in (model.encode(texts), theirs(encoder.save(tmp_path / "model")).encode(texts)):
        cosine = (encoder.encode(texts) * other).sum(1)
        assert np.abs(cosine - 1).max() < 1e-6
        same(encoder.encode(texts), other)
