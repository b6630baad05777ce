"""Adapters in peft's layout: loaded, they give the vectors that peft computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sentemb import Encoder
from sentemb.errors import ModelError

peft = pytest.importorskip("peft", reason='pip install "sentemb[peft]"')
# what peft itself calls in newer releases of transformers
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TEXTS = ["the dog runs", "a cat plays music in the city", "x"]


@pytest.fixture
def adapter(tiny_bert: Path, tmp_path: Path) -> Path:
    """As peft saves one that was trained on the tiny model."""
    from transformers import AutoModel

    model = peft.get_peft_model(AutoModel.from_pretrained(tiny_bert), peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["query", "value"], rank_pattern={"layer.0.attention.self.query": 2}))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_gives_what_peft_computes(adapter: Path, tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    before = (tiny_bert / "model.safetensors").read_bytes()
    encoder = Encoder.load(adapter, pooling="cls", precision="fp32")
    vectors = encoder.encode(TEXTS)
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_bert), adapter).eval()
    inputs = AutoTokenizer.from_pretrained(tiny_bert)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**inputs).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(vectors, theirs, atol=1e-5)
    assert np.abs(vectors - Encoder.load(tiny_bert, pooling="cls", precision="fp32").encode(TEXTS)).max() > 1e-2
    saved = encoder.save(tmp_path / "whole")
    assert not any("lora" in name for name in load_file(saved / "model.safetensors"))
    assert Encoder.load(saved).digest() == encoder.digest()
    half = Encoder.load(adapter, pooling="cls", weights="bf16").encode(TEXTS)
    assert (half * vectors).sum(1) / (np.linalg.norm(vectors, axis=1) ** 2) == pytest.approx(1, abs=0.05)
    assert (tiny_bert / "model.safetensors").read_bytes() == before  # weights that were mapped are not written back


def test_names_of_a_model_with_a_task_head_fit(adapter: Path) -> None:
    vectors = Encoder.load(adapter, precision="fp32").encode(TEXTS)
    weights = load_file(adapter / "adapter_model.safetensors")
    inside = {name.replace("base_model.model.", "base_model.model.bert.", 1): value for name, value in weights.items()}
    save_file(inside, adapter / "adapter_model.safetensors")
    np.testing.assert_array_equal(Encoder.load(adapter, precision="fp32").encode(TEXTS), vectors)


def test_an_adapter_inside_a_sentence_transformer(adapter: Path, tiny_bert: Path, tmp_path: Path) -> None:
    folder = Encoder.load(tiny_bert, pooling="cls", prompts={"query": "find: "}).save(tmp_path / "model")
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    for path in adapter.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    encoder = Encoder.load(folder, precision="fp32")
    assert encoder.prompts == {"query": "find: "}
    np.testing.assert_array_equal(encoder.encode(TEXTS),
                                  Encoder.load(adapter, pooling="cls", precision="fp32").encode(TEXTS))


@pytest.mark.parametrize(
    ("change", "match"),
    [({"peft_type": "IA3"}, r'peft_type = "IA3"'), ({"base_model_name_or_path": None}, "has no base_model"),
     ({"base_model_name_or_path": "./nowhere"}, r"base_model_name_or_path: \./nowhere: no such folder"),
     ({"modules_to_save": ["pooler"]}, "replaces"), ({"bias": "all"}, "replaces biases")],
)
def test_what_cannot_be_opened_is_told(adapter: Path, change: dict[str, object], match: str) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=match):
        Encoder.load(adapter)


def test_an_adapter_of_an_adapter_is_refused(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "second")
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": str(adapter)}
    (tmp_path / "second" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="which is an adapter itself"):
        Encoder.load(tmp_path / "second")


def test_weights_that_do_not_fit_are_told(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    name = min(weights)
    save_file({key: value for key, value in weights.items() if key != name}, path)
    with pytest.raises(ModelError, match=r"does not fit BertModel: lacks .*lora_A"):
        Encoder.load(adapter)
    save_file({**weights, name.replace("layer.0", "layer.7"): weights[name].clone()}, path)
    with pytest.raises(ModelError, match=r"does not fit BertModel: no place for .*layer\.7"):
        Encoder.load(adapter)
    path.unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        Encoder.load(adapter)
