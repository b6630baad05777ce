"""The adapter prefix against attention written out in float64; what learns, what is saved, what refuses it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones import ARCHITECTURES, backbone
from torch import Tensor, nn

from sentemb import Encoder
from sentemb.encoder.adapters import LayerPrefix, Prefix, prefix_weights
from sentemb.encoder.backbone import eager_attention
from sentemb.errors import ModelError

TEXTS = ["the dog runs", "a cat plays music in the city", "x"]
ADAPTED = [kind for kind in ARCHITECTURES if kind not in ("distilbert", "mpnet", "modernbert")]


def reference(attention: nn.Module, states: Tensor, mask: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """One layer's attention by loops over texts, heads and tokens; keys and values of text b stand before its own."""
    rows, length, width = states.shape
    heads = attention.num_attention_heads
    size = width // heads
    out = torch.zeros_like(states)
    query, key, value = (layer(states) for layer in (attention.query, attention.key, attention.value))
    for b in range(rows):
        words = [t for t in range(length) if mask[b, t]]
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            for t in range(length):
                scored = [*keys[b], *(key[b, word] for word in words)]
                scores = [float(query[b, t, own] @ one[own]) / math.sqrt(size) for one in scored]
                powers = [math.exp(score - max(scores)) for score in scores]
                read = [*values[b], *(value[b, word] for word in words)]
                for power, one in zip(powers, read, strict=True):
                    out[b, t, own] += power / sum(powers) * one[own]
    return out


@pytest.fixture
def batch() -> dict[str, Tensor]:
    ids = torch.tensor([[1, 7, 8, 2], [1, 9, 2, 0]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def layers_of(model: nn.Module) -> list[nn.Module]:
    return [part for part in model.modules() if isinstance(getattr(part, "prefix", None), LayerPrefix)]


@pytest.mark.parametrize("is_eager", [False, True], ids=["sdpa", "eager"])
@pytest.mark.parametrize("kind", ADAPTED)
def test_every_layer_is_attention_over_prefix_and_text(kind: str, is_eager: bool, batch: dict[str, Tensor]) -> None:
    model = backbone(kind).double()
    Prefix(length=3, dropout=0.0).add_to(model)
    checked = []

    def compare(attention: nn.Module, arguments: tuple[Tensor], output: tuple[Tensor, Tensor | None]) -> None:
        prefix = attention.prefix
        keys, values = ([list(own)] * 2 for own in (prefix.keys, prefix.values))
        expected = reference(attention, arguments[0], batch["attention_mask"], keys, values)
        torch.testing.assert_close(output[0], expected, rtol=1e-9, atol=1e-9)
        checked.append(attention)

    for attention in layers_of(model):
        nn.init.normal_(attention.prefix.keys)
        nn.init.normal_(attention.prefix.values)
        attention.register_forward_hook(compare)
    with torch.no_grad():
        if is_eager:
            with eager_attention(model):
                assert model(**batch, output_attentions=True).attentions[0].shape == (2, 4, 4, 7)
        else:
            model(**batch)
    assert len(checked) == 3


def test_keys_that_no_query_meets_leave_the_plain_backbone(batch: dict[str, Tensor]) -> None:
    model = backbone("bert").double()
    for layer in model.encoder.layer:  # all queries are the bias, so that one key is far from all of them
        nn.init.zeros_(layer.attention.self.query.weight)
    with torch.no_grad():
        plain = model(**batch).last_hidden_state
        Prefix(length=2).add_to(model)
        for attention in layers_of(model):
            attention.prefix.keys.copy_(-1e6 * attention.query.bias)
        prefixed = model(**batch).last_hidden_state
    torch.testing.assert_close(prefixed, plain, rtol=1e-12, atol=1e-12)


def test_the_prefix_alone_learns(batch: dict[str, Tensor]) -> None:
    model = backbone("bert")
    Prefix(length=2).add_to(model)
    model.train()(**batch).last_hidden_state.square().sum().backward()
    learning = {name for name, value in model.named_parameters() if value.grad is not None}
    assert learning == set(prefix_weights(model))
    assert len(learning) == 6
    assert all(value.grad.abs().max() > 0 for name, value in model.named_parameters() if name in learning)


def test_start_is_small_and_dropout_is_drawn_for_every_text() -> None:
    model = backbone("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Prefix(length=40, dropout=0.5).add_to(model)
        prefix = layers_of(model)[0].prefix.train()
        assert prefix.keys.std().item() == pytest.approx(0.02, rel=0.1)
        keys, _ = prefix.update(torch.zeros(2, 4, 1, 8), torch.zeros(2, 4, 1, 8))
    drawn = keys[:, :, :-1].transpose(1, 2).reshape(2, 40, 32)
    kept = drawn != 0
    assert 0.4 < kept.double().mean() < 0.6
    assert not torch.equal(kept[0], kept[1])
    torch.testing.assert_close(drawn[kept], (2 * prefix.keys).expand(2, -1, -1)[kept])
    assert torch.equal(keys[:, :, -1], torch.zeros(2, 4, 8))


@pytest.fixture
def encoder(tiny_bert: Path) -> Encoder:
    encoder = Encoder.load(tiny_bert, precision="fp32")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Prefix(length=5, dropout=0.25).add_to(encoder.module.backbone)
        for value in prefix_weights(encoder.module.backbone).values():
            nn.init.normal_(value)
    return encoder


def test_it_is_saved_and_loaded(encoder: Encoder, tiny_bert: Path, tmp_path: Path) -> None:
    vectors, plain = encoder.encode(TEXTS), Encoder.load(tiny_bert, precision="fp32").encode(TEXTS)
    assert np.abs(vectors - plain).max() > 0.05
    folder = encoder.save(tmp_path / "model")
    for _ in range(2):  # the second start would be a lean one
        again = Encoder.load(folder, precision="fp32")
        np.testing.assert_allclose(again.encode(TEXTS), vectors, atol=1e-6)
        assert again.digest() == encoder.digest()
    assert again.module.backbone.encoder.layer[0].attention.self.prefix.dropout.p == 0.25
    assert all(parameter.requires_grad for parameter in again.module.parameters())
    half = again.encode(TEXTS, precision="bf16", normalise=True)
    assert ((half * again.encode(TEXTS, normalise=True)).sum(1) > 0.99).all()
    np.testing.assert_allclose(again.encode(TEXTS[1]), vectors[1], atol=1e-5)
    with torch.no_grad():
        again.module.backbone.encoder.layer[1].attention.self.prefix.values.add_(0.1)
    assert again.digest() != encoder.digest()


def test_others_refuse_it_in_plain_words(encoder: Encoder, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = str(encoder.save(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"sentemb\.encoder\.adapters\.Prefix.* not part of Sentence Transformers"):
        sentence_transformers.SentenceTransformer(folder, device="cpu")
    with pytest.raises(ModelError, match=r"open it with sentemb\.Encoder\.load"):
        sentence_transformers.SentenceTransformer(folder, device="cpu", trust_remote_code=True)


def test_damaged_settings_and_weights_are_told(encoder: Encoder, tmp_path: Path) -> None:
    config = encoder.save(tmp_path / "model") / "1_Prefix" / "config.json"
    config.write_text(json.dumps({"length": 6, "dropout": 0.25}))
    with pytest.raises(ModelError, match="do not fit"):
        Encoder.load(tmp_path / "model")
    config.write_text(json.dumps({"lenght": 5}))
    with pytest.raises(ModelError, match="no settings of a prefix"):
        Encoder.load(tmp_path / "model")


@pytest.mark.parametrize("kind", ["distilbert", "mpnet", "modernbert"])
def test_other_attention_is_refused(kind: str) -> None:
    with pytest.raises(ModelError, match="takes no keys beside a text's"):
        Prefix().add_to(backbone(kind))


def test_a_second_prefix_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ModelError, match="has a prefix already"):
        Prefix().add_to(encoder.module.backbone)


@pytest.mark.parametrize(("settings", "match"), [({"length": 0}, "length = 0"), ({"dropout": 1.0}, "nothing to learn")])
def test_bad_values_are_refused(settings: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Prefix(**settings)
