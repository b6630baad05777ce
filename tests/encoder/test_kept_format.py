"""Weights that are kept in bfloat16: no float32 copy, the same digest, and float32 again where it is asked for."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from decoders import save_decoder
from safetensors.torch import load_file

from sentemb import Encoder
from sentemb.encoder.runners.choose import LeanRunner
from sentemb.errors import ModelError

TEXTS = ["the dog runs", "a cat plays music in the city", "two men made a river song", "x"]


@pytest.fixture(scope="module")
def decoders(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One random Qwen3, its weights stored in either format; those in bf16 are the others rounded."""
    return {name: save_decoder(tmp_path_factory.mktemp(name), tiny_bert, seed=3, dtype=dtype)
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}


def formats(encoder: Encoder) -> set[torch.dtype]:
    """Of the weights in memory, without completing them."""
    return {weight.dtype for weight in encoder._loaded.module.backbone.parameters()}


@pytest.mark.parametrize("stored", ["bf16", "fp32"])
def test_weights_stay_in_bf16_and_the_runner_uses_them(decoders: dict[str, Path], stored: str) -> None:
    encoder = Encoder.load(decoders[stored], precision="bf16")
    vectors = encoder.encode(TEXTS)
    assert formats(encoder) == {torch.bfloat16}
    assert (encoder.weights, encoder.format) == ("bf16", "bfloat16")
    run = encoder._runner("bf16")
    assert isinstance(run, LeanRunner)
    assert run.form.words.data_ptr() == encoder._loaded.module.backbone.embed_tokens.weight.data_ptr()
    exact = Encoder.load(decoders[stored], precision="fp32")
    assert exact.weights == "fp32"
    assert ((vectors * exact.encode(TEXTS)).sum(1) / np.linalg.norm(vectors, axis=1) > 0.999).all()


@pytest.mark.parametrize("stored", ["bf16", "fp32"])
def test_float32_is_read_again_and_never_made_of_rounded_weights(decoders: dict[str, Path], stored: str) -> None:
    exact = Encoder.load(decoders[stored], precision="fp32")
    encoder = Encoder.load(decoders[stored], precision="bf16")
    encoder.encode(TEXTS)
    assert encoder.digest() == exact.digest()
    assert formats(encoder) == {torch.bfloat16}  # the digest did not complete it
    np.testing.assert_array_equal(encoder.encode(TEXTS, precision="fp32"), exact.encode(TEXTS))
    assert formats(encoder) == {torch.float32}
    assert encoder.digest() == exact.digest()
    module = Encoder.load(decoders[stored], precision="bf16").module
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), exact.module.parameters(), strict=True))


def test_a_checkpoint_is_saved_in_its_own_format(decoders: dict[str, Path], tmp_path: Path) -> None:
    for stored, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        encoder = Encoder.load(decoders[stored], precision="bf16")
        folder = encoder.save(tmp_path / stored)
        before, after = (load_file(path / "model.safetensors") for path in (decoders[stored], folder))
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert json.loads((folder / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
        assert ("stored in bfloat16" in (folder / "README.md").read_text()) is (stored == "bf16")
        assert Encoder.load(folder).digest() == encoder.digest()
    assert formats(Encoder.load(Encoder.load(decoders["fp32"], precision="bf16").save(
        tmp_path / "rounded", dtype=torch.bfloat16), precision="bf16")) == {torch.bfloat16}


def test_heads_stay_in_float32(decoders: dict[str, Path], tmp_path: Path) -> None:
    encoder = Encoder.load(decoders["bf16"], precision="bf16", head={"use": "dense", "out_features": 8})
    assert encoder.encode(TEXTS).shape == (4, 8)
    assert {weight.dtype for weight in encoder._loaded.module.heads.parameters()} == {torch.float32}
    folder = encoder.save(tmp_path / "model")
    saved = Encoder.load(folder, precision="bf16")
    np.testing.assert_array_equal(saved.encode(TEXTS), encoder.encode(TEXTS))
    assert saved.digest() == encoder.digest()


def test_weights_in_bf16_for_good(decoders: dict[str, Path], tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in (decoders["fp32"], tiny_bert):  # also where there is a lean form
        encoder = Encoder.load(folder, weights="bf16")
        assert encoder.format == "bfloat16"
        assert {weight.dtype for weight in encoder.module.backbone.parameters()} == {torch.bfloat16}
        assert encoder.encode(TEXTS).shape == (4, 32)
        with caplog.at_level(logging.WARNING, "sentemb"):
            encoder.encode(TEXTS, precision="fp32")
        assert "were rounded to bfloat16" in caplog.text
        caplog.clear()


def test_unknown_format_is_told(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match=r'weights = "bf15".*bf16'):
        Encoder.load(tiny_bert, weights="bf15")  # type: ignore[arg-type]
