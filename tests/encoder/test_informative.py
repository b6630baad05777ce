"""masked_lm_mean against the checkpoint's own head; saved, loaded, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.encoder.informative import MaskedLMMean
from sentemb.errors import ModelError

TEXTS = ["the dog runs", "a cat plays music in the city", "x"]


def test_it_is_the_mean_of_the_heads_transformed_states(tiny_bert: Path) -> None:
    from transformers import AutoTokenizer, BertForMaskedLM

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), BertForMaskedLM.from_pretrained(tiny_bert).eval()
    vectors = Encoder.load(tiny_bert, pooling="masked_lm_mean", precision="fp32").encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            states = model.bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            expected = sum(model.cls.predictions.transform(state) for state in states) / len(states)
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_padding_and_the_gradient(tiny_bert: Path) -> None:
    pooling = MaskedLMMean()
    pooling.bind(4, 2)
    pooling.double()
    hidden = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    torch.testing.assert_close(pooling(hidden, mask)[:1], pooling(hidden[:1, :2], mask[:1, :2]))
    assert torch.autograd.gradcheck(lambda rows: pooling(rows, mask), (hidden,))
    pooling(hidden, mask).square().sum().backward()
    assert all(parameter.grad is not None for parameter in pooling.parameters())


def test_it_is_saved_and_loaded(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_bert, pooling="masked_lm_mean", precision="fp32")
    with torch.no_grad():
        encoder.module.pooling.dense.weight.add_(0.1)  # as training moves it
    again = Encoder.load(encoder.save(tmp_path / "model"), precision="fp32")
    np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
    assert again.digest() == encoder.digest()
    beside = Encoder.load(tiny_bert, pooling="cls+masked_lm_mean", precision="fp32").encode(TEXTS)
    plain = Encoder.load(tiny_bert, pooling="masked_lm_mean", precision="fp32").encode(TEXTS)
    np.testing.assert_allclose(beside[:, 32:], plain, atol=1e-5)


def test_a_checkpoint_without_a_head_is_refused(minilm: Path) -> None:
    with pytest.raises(ModelError, match="needs a trained masked-language-model head"):
        Encoder.load(minilm, pooling="masked_lm_mean")
