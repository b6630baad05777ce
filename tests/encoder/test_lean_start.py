"""A second start does without transformers and gives the same vectors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.encoder.lean_start import LEAN_FAMILIES, memo_path, read_skeleton
from sentemb.encoder.runners.attention import pack
from sentemb.encoder.runners.families import Skeleton
from sentemb.encoder.runners.forms import lean_form
from sentemb.types import TokenColumn

TEXTS = ["the dog runs", "a cat plays music in the city", "two men made a river song"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path / "cache"))


def is_lean(encoder: Encoder) -> bool:
    return isinstance(encoder._loaded.module.backbone, Skeleton)


@pytest.fixture
def model(tiny_bert: Path, tmp_path: Path) -> Path:
    """A sentence-transformers folder of our own, with a kept head."""
    return Encoder.load(tiny_bert, pooling="cls", head={"use": "mlp", "train_only": False}).save(tmp_path / "model")


def test_the_second_start_is_lean_and_equal(model: Path) -> None:
    first = Encoder.load(model, precision="fp32")
    vectors, digest = first.encode(TEXTS), first.digest()
    assert not is_lean(first)
    second = Encoder.load(model, precision="fp32")
    assert is_lean(second)
    assert np.array_equal(second.encode(TEXTS), vectors)
    assert second.digest() == digest
    assert second.vocabulary == first.vocabulary
    assert second.max_tokens == first.max_tokens
    assert second.tokeniser.decode(second.tokenise(TEXTS)) == TEXTS


def test_training_completes_a_lean_start(model: Path) -> None:
    reference = Encoder.load(model, precision="fp32")
    vectors = reference.encode(TEXTS)
    encoder = Encoder.load(model, precision="fp32")
    assert is_lean(encoder)
    lean = encoder._loaded.module
    names = [name for name, _ in encoder.module.named_parameters()]
    assert not is_lean(encoder)
    assert encoder.module.heads[0] is not lean.heads[0]
    assert names == [name for name, _ in reference.module.named_parameters()]
    assert all(parameter.requires_grad for parameter in encoder.module.parameters())
    np.testing.assert_allclose(encoder.encode(TEXTS), vectors, atol=1e-6)
    with torch.no_grad():
        encoder.module.backbone.encoder.layer[0].output.dense.weight[0].add_(5.0)
    assert not np.allclose(encoder.encode(TEXTS), vectors, atol=1e-3)
    assert encoder.digest() != reference.digest()


def test_a_lean_start_can_be_saved(model: Path, tmp_path: Path) -> None:
    vectors = Encoder.load(model, precision="fp32").encode(TEXTS)
    lean = Encoder.load(model, precision="fp32")
    assert is_lean(lean)
    again = Encoder.load(lean.save(tmp_path / "again"), precision="fp32")
    np.testing.assert_allclose(again.encode(TEXTS), vectors, atol=1e-6)


def test_another_precision_completes_it(model: Path) -> None:
    Encoder.load(model, precision="fp32").encode(TEXTS)
    encoder = Encoder.load(model, precision="fp32")
    assert is_lean(encoder)
    encoder.encode(TEXTS, precision="bf16")
    assert not is_lean(encoder)
    assert is_lean(Encoder.load(model, precision="bf16"))  # now both are known
    assert is_lean(Encoder.load(model, precision="fp32"))


def test_changes_and_overrides_mean_a_full_start(model: Path) -> None:
    Encoder.load(model, precision="fp32").encode(TEXTS)
    assert not is_lean(Encoder.load(model, precision="fp32", pooling="mean"))
    assert not is_lean(Encoder.load(model, precision="fp32", head="mlp"))
    short = Encoder.load(model, precision="fp32", max_tokens=5)
    assert is_lean(short)
    assert short.tokenise(TEXTS).lengths.max() == 5
    config = model / "config.json"
    os.utime(config, ns=(1, 1))
    assert not is_lean(Encoder.load(model, precision="fp32"))


def test_a_damaged_memo_is_ignored(model: Path) -> None:
    vectors = Encoder.load(model, precision="fp32").encode(TEXTS)
    path = memo_path(model)
    for text in ("", "{}", '{"tokenizer": 3}', "[1]"):
        path.write_text(text)
        encoder = Encoder.load(model, precision="fp32")
        assert not is_lean(encoder)
        assert np.array_equal(encoder.encode(TEXTS), vectors)


def test_weights_changed_before_the_first_encode_leave_no_memo(model: Path) -> None:
    encoder = Encoder.load(model, precision="fp32")
    with torch.no_grad():
        encoder.module.backbone.encoder.layer[0].output.dense.weight[0].add_(5.0)
    encoder.encode(TEXTS)
    assert not memo_path(model).exists()


@pytest.mark.parametrize("kind", LEAN_FAMILIES)
@pytest.mark.parametrize("with_head", [False, True])
def test_every_known_family_reads_the_same_weights(kind: str, with_head: bool, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 48}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 12, "n_heads": 4, "hidden_dim": 48}
    config = AutoConfig.for_model(kind, vocab_size=50, layer_norm_eps=1e-3, **sizes)
    made = (AutoModelForMaskedLM if with_head else AutoModel).from_config(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(tmp_path)
    backbone = AutoModel.from_pretrained(tmp_path).eval()
    flat = np.arange(5, 25, dtype=np.int32)
    packed = pack(TokenColumn(flat=flat, offsets=np.array([0, 12, 20]), text=np.array([0, 1])))
    with torch.inference_mode():
        full = lean_form(backbone, torch.float32)(packed)[0]
        lean = lean_form(read_skeleton(tmp_path), torch.float32)(packed)[0]
    assert torch.equal(full, lean)


def test_a_cold_second_start_imports_little(minilm: Path) -> None:
    code = (
        "import sys; from sentemb import Encoder; e = Encoder.load(sys.argv[1], precision='fp32'); e.encode(['a dog']);"
        "print([m for m in ('transformers', 'sentence_transformers', 'datasets', 'mteb', 'sklearn', 'pandas', 'faiss') "
        "if m in sys.modules])"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for expected in ("['transformers'", "[]"):
        done = subprocess.run([sys.executable, "-c", code, str(minilm)], capture_output=True, text=True, check=True,
                              env=environment)
        assert done.stdout.startswith(expected)
