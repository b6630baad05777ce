"""Causal models: the last token on both padding sides, and one instruction for queries from training to search."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder, Recipe
from sentemb.encoder.poolings import make_pooling
from sentemb.types import Tokens

QUERY = "find: "


@pytest.fixture(scope="module", params=["qwen3", "mistral"])
def decoder(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal model, with a tokenizer that pads on the left."""
    from transformers import AutoConfig, AutoModel

    folder = tmp_path_factory.mktemp(request.param)
    shutil.copy(tiny_bert / "tokenizer.json", folder)
    stored = json.loads((tiny_bert / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(stored | {"padding_side": "left"}))
    config = AutoConfig.for_model(
        request.param, vocab_size=json.loads((tiny_bert / "config.json").read_text())["vocab_size"], hidden_size=32,
        intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        max_position_embeddings=64, pad_token_id=0, initializer_range=0.2, architectures=["XForCausalLM"],
        sliding_window=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def test_last_reads_either_side() -> None:
    hidden = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    torch.testing.assert_close(make_pooling("last")(hidden, mask), torch.stack([hidden[0, 3], hidden[1, 2]]))
    prompt_left_out = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 0]])
    torch.testing.assert_close(make_pooling("last")(hidden, prompt_left_out), torch.stack([hidden[0, 3], hidden[1, 2]]))


def test_padding_on_either_side_gives_the_vector_of_the_text_alone(decoder: Path) -> None:
    encoder = Encoder.load(decoder, precision="fp32")
    texts = ["the dog runs", "a cat plays music in the city", "x"]
    vectors = encoder.encode(texts, normalise=False)
    hub = encoder.tokeniser.hub
    assert hub.padding_side == "left"
    for side in ("left", "right"):
        rows = hub(texts, padding=True, return_tensors="pt", padding_side=side)
        tokens = Tokens(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"])
        assert bool((tokens.attention_mask[:, 0 if side == "left" else -1] == 0).any())
        with torch.no_grad():
            pooled = encoder.module(tokens).pooled
        np.testing.assert_allclose(pooled.numpy(), vectors, atol=2e-5)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(encoder.encode(text, normalise=False), vector, atol=2e-5)


def test_queries_have_their_instruction_in_training_and_in_search(decoder: Path, tmp_path: Path) -> None:
    from sentemb import train
    from sentemb.recipe.train import build
    from sentemb.search import SearchIndex
    from sentemb.training.run import Run

    pairs = [{"anchor": f"red dog {i}", "positive": f"a red dog runs {i}"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    recipe = Recipe.from_tree({
        "encoder": {"backbone": str(decoder), "pooling": "last", "prompts": {"query": QUERY}},
        "data": {"use": "pairs", "path": str(tmp_path / "pairs.jsonl"), "prefixes": {"anchor": QUERY}},
        "views": {"use": "columns"}, "terms": [{"use": "info_nce"}],
        "train": {"batch_size": 8, "max_steps": 1, "precision": "fp32"},
    }, "r.toml")
    run = Run(build(recipe, tmp_path / "build"))
    inputs = run.make_input(np.arange(8), 0)
    assert inputs.use.together == ("anchor", "positive")
    for group in inputs.groups:
        for row, ids in zip(group.rows.tolist(), group.tokens.input_ids.tolist(), strict=True):  # views in turn
            text = run.plan.encoder.tokeniser.hub.decode(ids, skip_special_tokens=True).replace(" ", "")
            assert text.startswith("findreddog" if row < 8 else "areddog"), text

    result = train(recipe, output=tmp_path / "run")
    encoder = Encoder.load(result.model_dir, precision="fp32")
    np.testing.assert_array_equal(encoder.encode_query("red dog 1"), encoder.encode(QUERY + "red dog 1"))
    np.testing.assert_array_equal(encoder.encode_document("red dog 1"), encoder.encode("red dog 1"))
    documents = [pair["positive"] for pair in pairs]
    with SearchIndex.build(tmp_path / "index", documents, encoder=encoder, kind="flat") as index:
        hits = index.search(["red dog 1"], k=8)[0]
    vectors = encoder.encode([hit.text for hit in hits], normalise=True)
    query = encoder.encode(QUERY + "red dog 1", normalise=True)
    np.testing.assert_allclose([hit.score for hit in hits], vectors @ query, atol=1e-5)
