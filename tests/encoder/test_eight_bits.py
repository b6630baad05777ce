"""Eight bits as a form of a model: what `sentemb quantize` promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backbones import ARCHITECTURES, VOCABULARY, backbone, column, module_of

from sentemb import Encoder
from sentemb.cli import main
from sentemb.encoder import eight_bits
from sentemb.encoder.eight_bits import prepare
from sentemb.encoder.runners import int8
from sentemb.encoder.runners.int8 import ByteLinear, has_byte_products
from sentemb.errors import ModelError

pytestmark = pytest.mark.skipif(not has_byte_products(), reason="no exact products of bytes on this processor")
WORDS = "the dog cat child runs eats plays music guitar red blue green river house song film book year world".split()
POST_NORM = [kind for kind in ARCHITECTURES if kind != "modernbert"]
MANY = column([9, 9, 8, 8, 7, 7, 7, 6, 5, 5, 4, 3] * 40)


def sample(count: int = 300) -> list[str]:
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, int(size))) + f" {i}" for i, size in
            enumerate(generator.integers(3, 20, count))]


@pytest.fixture(scope="module")
def saved(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    encoder = Encoder.load(tiny_bert, head={"use": "dense", "out_features": 24}).quantised(sample())
    return encoder.save(folder / "model")


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_it_loads_like_any_model_and_stays_close(saved: Path) -> None:
    texts = sample(60)
    encoder = Encoder.load(saved)
    assert encoder.format == "int8"
    vectors, exact = encoder.encode(texts), encoder.encode(texts, precision="fp32")
    assert vectors.shape == exact.shape == (60, 24)
    assert not np.array_equal(vectors, exact)
    assert (unit(vectors) * unit(exact)).sum(1).min() > 0.99
    facts = json.loads((saved / "int8.json").read_text())
    assert facts["held_out_texts"] >= 100
    assert 0.99 < facts["least_cosine"] <= facts["mean_cosine"] <= 1


def test_vectors_are_reproducible(saved: Path) -> None:
    texts = sample(60)
    first = Encoder.load(saved)
    vectors = first.encode(texts)
    assert np.array_equal(Encoder.load(saved).encode(texts), vectors)  # the second start is a lean one
    for row in (0, 17, 59):  # whatever the company
        np.testing.assert_allclose(unit(first.encode(texts[row])), unit(vectors[row]), atol=5e-3)
    assert Encoder.load(saved).digest() == first.digest() != Encoder.load(saved, max_tokens=16).digest()


def test_the_form_is_part_of_the_digest(saved: Path, tiny_bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_bert)
    quantised = encoder.quantised(sample())
    assert quantised.digest() != encoder.digest()
    folder = quantised.save(tmp_path / "copy")
    again = Encoder.load(folder)
    assert again.digest() == quantised.digest()
    assert np.array_equal(again.encode(sample(20)), quantised.encode(sample(20)))
    assert encoder.format != "int8"  # the one it was made of goes on as it was


def test_changed_weights_leave_the_form(saved: Path) -> None:
    encoder = Encoder.load(saved)
    assert encoder.eight_bits is not None
    with torch.no_grad():
        encoder.module.backbone.encoder.layer[0].output.dense.weight.add_(0.5)
    assert encoder.eight_bits is None
    assert encoder.format != "int8"


def test_sentence_transformers_opens_it(saved: Path) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(saved), device="cpu").encode(sample(5))
    np.testing.assert_allclose(theirs, Encoder.load(saved).encode(sample(5), precision="fp32"), atol=1e-5)


def test_a_machine_without_byte_products_says_so(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "has_byte_products", lambda: False)
    with pytest.raises(ModelError, match=r'no exact products of bytes.*precision = "fp32"'):
        Encoder.load(saved)
    assert Encoder.load(saved, precision="fp32").encode("a dog").shape == (24,)
    with pytest.raises(ModelError, match="on a GPU"):
        eight_bits.require_byte_products(torch.device("cuda"))


def test_a_sample_must_be_large_enough(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="1 different texts"):
        Encoder.load(tiny_bert).quantised(["a dog"] * 500)


def test_precision_int8_needs_such_a_model(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="sentemb quantize MODEL"):
        Encoder.load(tiny_bert, precision="int8")


def test_other_architectures_have_no_such_form() -> None:
    with pytest.raises(ModelError, match="ModernBertModel has no form of eight bits"):
        prepare(module_of(backbone("modernbert")), MANY, VOCABULARY)
    ruined = module_of(backbone("bert"))
    with torch.no_grad():
        ruined.backbone.embeddings.word_embeddings.weight[5:40] = float("nan")
    with pytest.raises(ModelError), pytest.warns(UserWarning, match="differs"):
        prepare(ruined, MANY, VOCABULARY)


@pytest.mark.parametrize("inner", [3, 32, 48])
@pytest.mark.parametrize("kind", POST_NORM)
def test_every_family_stays_close(kind: str, inner: int) -> None:
    changes = {"hidden_dim" if kind == "distilbert" else "intermediate_size": inner}
    module = module_of(backbone(kind, **changes))
    form = prepare(module, MANY, VOCABULARY)
    assert 0.99 < form.facts["mean_cosine"] < 1 - 1e-7


def test_the_command(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(sample()) + "\n")
    pairs = [f"{a}\t{b}\t{i % 5}" for i, (a, b) in enumerate(zip(sample(20), reversed(sample(20)), strict=True))]
    (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(pairs) + "\n")
    command = ["quantize", str(tiny_bert), "--texts", str(tmp_path / "texts.txt"), "-o", str(tmp_path / "model")]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--sts", str(tmp_path / "pairs.tsv"), "--json"])
    assert not stop.value.code
    facts = json.loads(capsys.readouterr().out)
    assert facts["mean_cosine"] > 0.99
    assert {"before", "after"} == set(facts["score"])
    assert Encoder.load(tmp_path / "model").format == "int8"
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["encode", str(tmp_path / "texts.txt"), "-m", str(tmp_path / "model"), "-o", str(tmp_path / "v.npy")])
    assert not stop.value.code
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), Encoder.load(tmp_path / "model").encode(sample()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
def test_a_map_of_bytes_is_the_sum_of_whole_numbers(dtype: torch.dtype, activation: str | None) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randint(-127, 128, (5, 40), dtype=torch.int8, generator=generator)
    x = torch.randint(0, 256, (7, 40), dtype=torch.uint8, generator=generator)
    scales, bias = torch.rand(5, generator=generator) / 1e3, torch.randn(5, generator=generator)
    residual = torch.randn(7, 5, generator=generator).to(dtype)
    linear = ByteLinear(weight, scales, bias, scale=0.5, zero=100)
    whole = (x.long() - 100) @ weight.long().T
    expected = whole * 0.5 * scales + bias
    activated = {None: expected, "gelu": F.gelu(expected), "relu": F.relu(expected)}[activation]
    close = {"atol": 1e-4, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.01}
    torch.testing.assert_close(linear(x, dtype, activation).float(), activated, **close)
    torch.testing.assert_close(linear.plus(x, residual.clone()).float(), expected + residual.float(), **close)


@pytest.mark.slow
def test_a_real_model_keeps_its_embeddings(minilm: Path, tmp_path: Path) -> None:
    words = "river music theory winter market engine poem doctor island protein border court travel garden".split()
    generator = np.random.default_rng(0)
    texts = [f"The {' and the '.join(generator.choice(words, 6))} of {year}." for year in range(1500, 2020)]
    encoder = Encoder.load(minilm).quantised(texts)
    other = [f"The {' and the '.join(generator.choice(words, 6))} of {year}." for year in range(1400, 1600)]
    cosines = (encoder.encode(other, normalise=True) * encoder.encode(other, precision="fp32", normalise=True)).sum(1)
    assert 0.999 < cosines.mean() < 0.99999
