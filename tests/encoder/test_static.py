"""Static models: both layouts, what they compute, training, and distilling one from an encoder."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sentemb import Encoder, Recipe, SearchIndex, check, distil, train
from sentemb.cli import main
from sentemb.data.tokens import pad
from sentemb.encoder.distil import inverse_frequencies, lone_tokens
from sentemb.errors import ModelError, RecipeError

TEXTS = ["the dog runs", "a cat plays music in the city", "Two men made a river song.", "x", "the ☃ dog"]


def table_of(folder: Path, width: int = 6) -> torch.Tensor:
    size = len((folder / "vocab.txt").read_text().split())
    return torch.randn(size, width, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def st_folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """As sentence-transformers itself saves a StaticEmbedding."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))
    module = StaticEmbedding(tokenizer, embedding_weights=table_of(tiny_bert))
    SentenceTransformer(modules=[module], device="cpu").save(str(tmp_path / "st"), create_model_card=False)
    return tmp_path / "st"


@pytest.fixture
def m2v_folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """As model2vec saves a model with fewer rows than tokens."""
    folder = tmp_path / "m2v"
    folder.mkdir()
    shutil.copy(tiny_bert / "tokenizer.json", folder)
    table = table_of(tiny_bert)
    mapping = torch.arange(len(table)) % 50
    weights = torch.linspace(0.1, 1.0, len(table))
    save_file({"embeddings": table[:50].half(), "mapping": mapping, "weights": weights}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True, "hidden_dim": 6}))
    return folder


def tokens_of(folder: Path, text: str, *, drops_unknown: bool) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return [token for token in ids if not (drops_unknown and token == tokenizer.token_to_id("[UNK]"))]


def mean_of(table: list[list[float]], ids: list[int], *, normalise: bool) -> list[float]:
    mean = [sum(table[token][d] for token in ids) / max(len(ids), 1) for d in range(len(table[0]))]
    length = math.sqrt(sum(x * x for x in mean)) if normalise else 1.0
    return [x / max(length, 1e-12) for x in mean]


def test_sentence_transformers_layout(st_folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(st_folder)
    vectors = encoder.encode([*TEXTS, ""])
    for row, text in enumerate([*TEXTS, ""]):
        ids = tokens_of(tiny_bert, text, drops_unknown=False)
        wanted = mean_of(table_of(tiny_bert).tolist(), ids, normalise=False)
        assert vectors[row].tolist() == pytest.approx(wanted, abs=1e-5)
    np.testing.assert_allclose(SentenceTransformer(str(st_folder), device="cpu").encode(TEXTS), vectors[:-1], atol=1e-5)
    saved = encoder.save(tmp_path / "saved")
    np.testing.assert_allclose(SentenceTransformer(str(saved), device="cpu").encode(TEXTS), vectors[:-1], atol=1e-5)
    assert Encoder.load(saved).digest() == encoder.digest()
    assert encoder.encode(TEXTS * 3000, precision="bf16").shape == (15_000, 6)


def test_model2vec_layout(m2v_folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(m2v_folder)
    assert encoder.max_tokens == 512
    table = table_of(tiny_bert)[:50].half().float()
    rows = [(table[i % 50] * w).tolist() for i, w in enumerate(torch.linspace(0.1, 1.0, len(table_of(tiny_bert))))]
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        ids = tokens_of(tiny_bert, text, drops_unknown=True)
        assert vector.tolist() == pytest.approx(mean_of(rows, ids, normalise=True), abs=1e-6)
    saved = encoder.save(tmp_path / "saved")
    assert Encoder.load(saved).digest() == encoder.digest()
    assert json.loads((saved / "config.json").read_text())["model_type"] == "model2vec"
    assert (saved / "tokenizer.json").is_file()


def test_a_text_without_tokens_is_zero(m2v_folder: Path) -> None:
    vectors = Encoder.load(m2v_folder).encode(["", "☃", "the dog"])
    assert not vectors[:2].any()
    assert np.linalg.norm(vectors[2]) == pytest.approx(1.0)


def test_it_starts_without_transformers(m2v_folder: Path) -> None:
    code = (
        "import sys; from sentemb import Encoder; "
        f"Encoder.load({str(m2v_folder)!r}).encode(['the dog']); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_index_of_it(m2v_folder: Path, tmp_path: Path) -> None:
    index = SearchIndex.build(tmp_path / "index", [{"text": text} for text in TEXTS[:3]], encoder=str(m2v_folder))
    assert index.search(["cat music"], k=1)[0][0].text == TEXTS[1]


# --------------------------------------------------------------------------------------------- training
def test_it_learns(m2v_folder: Path, tmp_path: Path) -> None:
    words = ["dog", "cat", "man", "woman", "city", "river", "song", "film"]
    pairs = [(f"the {word} runs", f"a big {word}") for word in words]
    recipe = Recipe.from_tree({
        "encoder": {"backbone": str(m2v_folder)}, "data": {"use": "pairs", "path": "-"}, "views": {"use": "columns"},
        "terms": [{"use": "info_nce", "temperature": 0.1}],
        "train": {"batch_size": 8, "epochs": 40, "learning_rate": 1e-2, "precision": "fp32"},
    }, "test.toml")  # fmt: skip
    before = Encoder.load(m2v_folder)
    result = train(recipe, data=pairs, output=tmp_path / "run")
    after = Encoder.load(result.model_dir)
    assert after.digest() != before.digest()
    assert not after.encode([""]).any()  # the row for nothing has not moved

    def hits(encoder: Encoder) -> int:
        one, two = (encoder.encode(list(side)) for side in zip(*pairs, strict=True))
        return int(((one @ two.T).argmax(axis=1) == np.arange(len(pairs))).sum())

    assert hits(after) == len(pairs) > hits(before)


def test_batches_looked_up_together_have_the_gradient_of_each_alone(st_folder: Path) -> None:
    encoder = Encoder.load(st_folder)
    module, table = encoder.module.train(), encoder.module.backbone.embedding.weight
    batches = [pad(encoder.tokenise(part), encoder.vocabulary.pad) for part in (TEXTS[:3], [*TEXTS[3:], "", "the dog"])]

    def gradient(pooled: list[torch.Tensor]) -> torch.Tensor:
        table.grad = None
        sum((rows**3).sum() for rows in pooled).backward()
        assert table.grad is not None
        return table.grad.clone()

    together = [encoded.pooled for encoded in module.together(batches)]
    alone = [module(tokens).pooled for tokens in batches]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    expected = gradient(alone)
    assert expected.any()
    torch.testing.assert_close(gradient(together), expected)


def test_words_are_predicted_from_texts_of_several_lengths(st_folder: Path, tmp_path: Path) -> None:
    texts = ["a dog", "the cat sees a river in the city", "music", "a man sings", "the film", "dog and cat and man"]
    recipe = Recipe.from_tree({
        "encoder": {"backbone": str(st_folder)}, "data": {"use": "pairs", "path": "-"}, "views": {"use": "columns"},
        "terms": [{"use": "words", "vocabulary": 8}],
        "train": {"batch_size": 3, "epochs": 20, "learning_rate": 1e-1, "precision": "fp32"},
    }, "test.toml")  # fmt: skip
    result = train(recipe, data=[(text, text) for text in texts], output=tmp_path / "run")
    assert result.last_losses["words"] < 0.5 * 8 * 0.6931  # half of what eight coins cost


def test_check_knows_static_models(m2v_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"the dog runs {i}\n" for i in range(80)))
    changes = [f"encoder.backbone={m2v_folder}", f"data.path={tmp_path / 'lines.txt'}", "encoder.heads=[]",
               "encoder.pooling=mean"]
    assert any("peak memory" in line for line in check(Recipe.load("simcse-unsup-minilm", changes)).verified)


def test_twins_without_dropout_are_told_before_and_at_training(
    m2v_folder: Path, tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"the dog runs {i}\n" for i in range(80)))
    still = tmp_path / "still"
    shutil.copytree(tiny_bert, still)
    config = json.loads((still / "config.json").read_text())
    zero = {key: 0.0 for key in config if key.endswith("dropout_prob")}
    assert len(zero) == 2
    (still / "config.json").write_text(json.dumps(config | zero))
    changes = [f"data.path={tmp_path / 'lines.txt'}", "encoder.heads=[]", "encoder.pooling=mean", "train.max_steps=1",
               "train.precision=fp32"]
    for backbone, is_told in ((m2v_folder, True), (still, True), (tiny_bert, False)):
        recipe = Recipe.load("simcse-unsup-minilm", [f"encoder.backbone={backbone}", *changes])
        assert any("drops nothing out" in line for line in check(recipe).unverified) is is_told
        caplog.clear()
        train(recipe, output=tmp_path / f"run-{backbone.name}")
        assert ("views (twice): the backbone drops nothing out" in caplog.text) is is_told
    with pytest.raises(RecipeError, match="take pooling"):  # check finds what training would refuse
        check(Recipe.load("simcse-unsup-minilm", [f"encoder.backbone={m2v_folder}", *changes, "encoder.pooling=cls"]))


# --------------------------------------------------------------------------------------------- distilling
def test_distilled_by_hand(tiny_bert: Path) -> None:
    encoder = Encoder.load(tiny_bert, precision="fp32")
    static = distil(encoder, width=None, sif=None)
    vocabulary = (tiny_bert / "vocab.txt").read_text().split()
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    kept = [number for number, word in enumerate(vocabulary) if word not in special]
    assert lone_tokens(encoder.tokeniser).text.tolist() == kept
    words = ["dog", "music"]
    alone = encoder.encode(words, normalise=False)  # [CLS] dog [SEP]
    np.testing.assert_allclose(static.encode(words, normalise=False), alone, atol=1e-6)
    mean = alone.mean(axis=0) / np.linalg.norm(alone.mean(axis=0))
    np.testing.assert_allclose(static.encode(["dog music"])[0], mean, atol=1e-6)
    np.testing.assert_allclose(static.encode(["dog ☃ music"])[0], mean, atol=1e-6)  # unknown: left out


def test_weights_and_components(tiny_bert: Path) -> None:
    encoder = Encoder.load(tiny_bert, precision="fp32")
    vectors = encoder.encode(lone_tokens(encoder.tokeniser), normalise=False)
    n = len(vectors)
    total = sum(1 / rank for rank in range(2, n + 2))
    wanted = [1e-2 / (1e-2 + 1 / rank / total) for rank in range(2, n + 2)]
    np.testing.assert_allclose(inverse_frequencies(n, 1e-2), wanted, rtol=1e-6)
    static = distil(encoder, width=5, sif=1e-2)
    assert static.width == 5
    rows = static.module.backbone.vectors[lone_tokens(encoder.tokeniser).text].detach().numpy()
    rows = rows / np.array(wanted)[:, None]
    centred = vectors - vectors.mean(axis=0)
    variance = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1][:5]
    np.testing.assert_allclose((rows**2).sum(axis=0), variance, rtol=1e-3)
    assert distil(encoder, width=99).width == 32


def test_the_command_and_what_it_makes(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sentence_transformers import SentenceTransformer

    command = ["distill", str(tiny_bert), "-o", str(tmp_path / "static"), "--width", "8", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert not ended.value.code
    facts = json.loads(capsys.readouterr().out)
    static = Encoder.load(tmp_path / "static")
    assert facts["width"] == static.width == 8
    assert facts["model"] == static.digest()
    theirs = SentenceTransformer(str(tmp_path / "static"), device="cpu").encode(TEXTS[:4])
    np.testing.assert_allclose(static.encode(TEXTS[:4]), theirs, atol=1e-6)
    with pytest.raises(SystemExit):
        main(command)
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command[:2], "-o", str(tiny_bert), "--overwrite"])
    assert "replaces only a static model" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- bad input
def test_faults_are_named(m2v_folder: Path, tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="no other pooling"):
        Encoder.load(m2v_folder, pooling="cls")
    with pytest.raises(ModelError, match="has no layers"):
        Encoder.load(m2v_folder, layers=[0])
    with pytest.raises(ModelError, match="is a static model already"):
        distil(Encoder.load(m2v_folder))
    for settings in ({"width": 0}, {"sif": 0.0}, {"sif": 1.0}):
        with pytest.raises(ModelError, match="allowed: a width of at least 1"):
            distil(Encoder.load(tiny_bert), **settings)
    save_file({"embeddings": torch.zeros(3, 6)}, m2v_folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"has 3 rows, but tokenizer\.json numbers"):
        Encoder.load(m2v_folder)
    save_file({"table": torch.zeros(3, 6)}, m2v_folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"holds table; a static model has a table embedding\.weight or embeddings"):
        Encoder.load(m2v_folder)
    (m2v_folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        Encoder.load(m2v_folder)
