"""sentemb's encoder where libraries want a ``SentenceTransformer``: called exactly as those libraries do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers", reason='pip install "sentemb[rerank]"')

from sentence_transformers import SentenceTransformer

from sentemb import Encoder
from sentemb.integrations.sentence_transformers import SentembTransformer

TEXTS = ["a dog eats", "blue guitar music", "a man in the old house by the river"]


@pytest.fixture(scope="module")
def folder(tiny_bert, tmp_path_factory):
    return Encoder.load(tiny_bert, prompts={"query": "find: "}).save(tmp_path_factory.mktemp("st") / "model")


@pytest.fixture
def model(folder) -> SentembTransformer:
    return SentembTransformer(folder, precision="fp32", device="cpu")


@pytest.fixture
def ours(model, monkeypatch) -> list[int]:
    """Which calls sentemb answered."""
    calls: list[int] = []
    encode = model._sentemb.encode

    def counted(texts, **arguments):
        calls.append(len(texts))
        return encode(texts, **arguments)

    monkeypatch.setattr(model._sentemb, "encode", counted)
    return calls


@pytest.mark.parametrize("arguments", [
    {"show_progress_bar": False},  # BERTopic and KeyBERT, of documents and of words
    {"convert_to_numpy": True, "normalize_embeddings": False},  # Chroma
    {"normalize_embeddings": True},  # SetFit's head
    {"batch_size": 16, "normalize_embeddings": False, "convert_to_tensor": True, "show_progress_bar": None},  # SetFit
    {"convert_to_numpy": False}, {"prompt_name": "query"}, {"prompt": "x "},
])  # fmt: skip
def test_every_call_gives_what_sentence_transformers_gives(model, folder, ours, arguments) -> None:
    wanted = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, **arguments)
    found = model.encode(TEXTS, **arguments)
    assert type(found) is type(wanted)
    np.testing.assert_allclose(np.array([np.asarray(row) for row in found]),
                               np.array([np.asarray(row) for row in wanted]), atol=1e-5)  # fmt: skip
    assert ours == [3]


def test_one_text_and_queries(model, ours) -> None:
    assert model.encode("a dog").shape == (32,)
    np.testing.assert_allclose(model.encode_query("a dog"), model.encode("find: a dog"), atol=1e-6)
    assert model.encode_document(np.array(TEXTS)).shape == (3, 32)
    assert len(ours) == 4
    assert model.encode([]).shape[0] == 0


def test_libraries_know_it_for_what_they_take(model) -> None:
    assert "sentence_transformers" in str(type(model))  # how BERTopic and KeyBERT choose a backend
    assert isinstance(model, SentenceTransformer)  # what the backend then asks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its newest releases call it get_embedding_dimension
        assert model.get_sentence_embedding_dimension() == 32
    assert model.get_max_seq_length() == 128
    assert model.similarity(model.encode(TEXTS), model.encode(TEXTS)).shape == (3, 3)


def test_what_sentemb_does_not_do_is_left_to_sentence_transformers(model, ours) -> None:
    assert model.encode(TEXTS, output_value="token_embeddings")[0].shape[1] == 32
    assert model.encode(TEXTS, precision="binary").dtype == np.int8
    assert model.encode(TEXTS, truncate_dim=8).shape == (3, 8)
    model.max_seq_length = 4
    model.encode(TEXTS)
    assert ours == []


def test_training_as_setfit_does_changes_what_is_encoded(model, tmp_path, caplog) -> None:
    before = model.encode(TEXTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    features = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    model(dict(features))["sentence_embedding"].sum().backward()
    optimizer.step()
    after = model.encode(TEXTS)
    assert np.abs(after - before).max() > 1e-3
    assert "sentence-transformers encodes from here on" in caplog.text
    model.save(str(tmp_path / "trained"))
    again = SentembTransformer(tmp_path / "trained", precision="fp32")
    np.testing.assert_allclose(again.encode(TEXTS), after, atol=1e-5)
