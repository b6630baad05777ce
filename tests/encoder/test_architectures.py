"""Backbones without a lean form: every other Hugging Face encoder works, agrees with sentence-transformers, saves."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.encoder.poolings import Last

TEXTS = ["the dog runs", "a cat plays music in the city", "Two men made a river song.", "x"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CONFIGURATIONS: dict[str, dict[str, object]] = {
    "albert": SIZES | {"embedding_size": 16},
    "deberta-v2": SIZES,
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "llama": SIZES | {"num_key_value_heads": 2, "pad_token_id": 0},
    "modernbert": SIZES | {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2,
                           "eos_token_id": 3, "local_attention": 4},
    "mpnet": SIZES | {"pad_token_id": 0},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
}


@pytest.fixture
def checkpoint(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path: Path) -> Path:
    from transformers import AutoConfig, AutoModel

    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_bert, folder)
    vocabulary = len((folder / "vocab.txt").read_text().split())
    config = AutoConfig.for_model(request.param, vocab_size=vocabulary, **CONFIGURATIONS[request.param])
    with torch.random.fork_rng():
        torch.manual_seed(5)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("checkpoint", CONFIGURATIONS, indirect=True)
def test_other_architectures(checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(checkpoint, pooling="mean", precision="fp32")
    vectors = encoder.encode(TEXTS)
    assert vectors.std() > 1e-3
    folder = encoder.save(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors, other, atol=5e-6 * max(1.0, float(np.abs(other).max())))
    assert Encoder.load(folder).digest() == encoder.digest()


@pytest.mark.parametrize("checkpoint", ["llama"], indirect=True)
def test_causal_models_pool_the_last_token(checkpoint: Path) -> None:
    import json

    config = json.loads((checkpoint / "config.json").read_text()) | {"architectures": ["LlamaForCausalLM"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert Encoder.load(checkpoint).module.pooling == Last()
