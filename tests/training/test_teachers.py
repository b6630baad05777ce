"""Students of a teacher that reads with another tokenizer: its vectors now or from a file, and translations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentemb import Encoder, Recipe, train
from sentemb.cli import main
from sentemb.errors import DataError, RecipeError

SENTENCES = [f"{who} {what} {where} {i}" for i, (who, what, where) in enumerate(
    (who, what, where) for who in ("the man", "a woman", "the dog", "a child")
    for what in ("runs", "eats", "plays music", "made a film") for where in ("in the city", "by the river", "at home")
)]  # fmt: skip


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of another vocabulary and width than ``tiny_bert``."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("teacher")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(" ".join(SENTENCES).split())]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertModel(BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=32,
        )).save_pretrained(folder)
    return folder


def recipe(backbone: Path, companion: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe.from_tree({
        "encoder": {"backbone": str(backbone), "pooling": "mean"}, "data": {"use": "lines", "path": "-"},
        "views": {"use": "twice"}, "companions": [{"use": "reference", **companion}],
        "terms": [{"use": "mse"}, {"use": "distill", "temperature": 0.1}],
        "train": {"batch_size": 12, "max_steps": 24, "epochs": 9, "learning_rate": 3e-3, "precision": "fp32"},
        **changes,
    }, "test.toml")  # fmt: skip


def losses(result: Any) -> dict[str, float]:
    return dict(result.last_losses)


def test_a_teacher_of_another_tokenizer_and_width(tiny_bert: Path, teacher: Path, tmp_path: Path) -> None:
    student = recipe(tiny_bert, {"model": str(teacher), "precompute": True})
    result = train(student, data=SENTENCES, output=tmp_path / "run")
    assert losses(result)["mse"] < 0.5  # 2 where nothing was learned
    mine, theirs = (Encoder.load(path).encode(SENTENCES) for path in (result.model_dir, teacher))
    agreement = np.corrcoef((mine @ mine.T).ravel(), (theirs @ theirs.T).ravel())[0, 1]
    start = Encoder.load(tiny_bert).encode(SENTENCES)
    assert agreement > np.corrcoef((start @ start.T).ravel(), (theirs @ theirs.T).ravel())[0, 1] + 0.1
    assert mine.shape[1] == 32  # the map to the teacher's width is left behind


def test_vectors_of_a_file_teach_as_their_model_does(tiny_bert: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in reversed(SENTENCES)))
    with pytest.raises(SystemExit):
        main(["encode", str(tmp_path / "texts.txt"), "-o", str(tmp_path / "v.parquet"), "--model", str(teacher),
              "--precision", "fp32", "--quiet"])
    steps = {"train": {"batch_size": 12, "max_steps": 2, "learning_rate": 1e-3, "precision": "fp32"}}
    first = train(recipe(tiny_bert, {"model": str(teacher), "precompute": True}, **steps), data=SENTENCES,
                  output=tmp_path / "model")
    second = train(recipe(tiny_bert, {"vectors": str(tmp_path / "v.parquet")}, **steps), data=SENTENCES,
                   output=tmp_path / "file")
    for name, value in losses(first).items():
        assert losses(second)[name] == pytest.approx(value, rel=2e-3)  # rounded to half precision


def test_a_translation_moves_to_its_source(tiny_bert: Path, teacher: Path, tmp_path: Path) -> None:
    pairs = [(text, " ".join(reversed(text.split()))) for text in SENTENCES]
    student = recipe(
        tiny_bert, {"model": str(teacher), "precompute": True, "columns": ["anchor"]}, views={"use": "columns"},
        data={"use": "pairs", "path": "-"}, terms=[{"use": "mse", "toward": "anchor"}],
    )
    result = train(student, data=pairs, output=tmp_path / "run")
    assert losses(result)["mse"] < 0.5


def test_a_teacher_of_a_mixture(tiny_bert: Path, teacher: Path, tmp_path: Path) -> None:
    mixture = {"use": "mixture", "parts": [
        {"use": "lines", "path": str(lines(tmp_path)), "name": "one"},
        {"use": "pairs", "path": str(tmp_path / "pairs.tsv"), "name": "two"},
    ]}  # fmt: skip
    (tmp_path / "pairs.tsv").write_text("anchor\tpositive\n" + "".join(f"{one}\t{one} too\n" for one in SENTENCES))
    views = {"use": "by_source", "makers": {"one": {"use": "twice"}, "two": {"use": "columns"}}}
    student = recipe(tiny_bert, {"model": str(teacher), "precompute": True}, data=mixture, views=views)
    found = losses(train(student, output=tmp_path / "run"))
    assert max(value for name, value in found.items() if name.endswith("mse")) < 0.7


def test_a_stopped_student_goes_on_bit_for_bit(tiny_bert: Path, teacher: Path, tmp_path: Path) -> None:
    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    student = recipe(tiny_bert, {"model": str(teacher), "precompute": True},
                     train={"batch_size": 12, "max_steps": 4, "epochs": 9, "precision": "fp32"})
    student = student.replace(data=student.data.__class__(path=str(lines(tmp_path))))
    whole = train(student, output=tmp_path / "whole")
    run = Run(build(student, tmp_path / "half"))
    for step, batches in enumerate(run.inputs()):
        run.train_step(batches)
        if step == 1:
            break
    run.save()
    half = train(student, output=tmp_path / "half", resume=True)
    first, second = ((path / "model.safetensors").read_bytes() for path in (whole.model_dir, half.model_dir))
    assert first == second


def lines(folder: Path) -> Path:
    path = folder / "lines.txt"
    path.write_text("".join(f"{text}\n" for text in SENTENCES))
    return path


def test_faults_are_told_before_a_step(tiny_bert: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"its tokenizer differs .* precompute = true"):
        train(recipe(tiny_bert, {"model": str(teacher)}), data=SENTENCES, output=tmp_path / "live")
    np.save(tmp_path / "v.npy", np.ones((len(SENTENCES) - 1, 4), dtype=np.float32))
    with pytest.raises(DataError, match=r"companions: reference: vectors = .*v.npy has 47 rows, the data have 48"):
        train(recipe(tiny_bert, {"vectors": str(tmp_path / "v.npy")}), data=SENTENCES, output=tmp_path / "short")
    with pytest.raises(RecipeError, match=r"width = 16 must be below the vectors' own, 16"):
        train(recipe(tiny_bert, {"model": str(teacher), "precompute": True, "width": 16}), data=SENTENCES,
              output=tmp_path / "wide")
    assert not list(tmp_path.glob("*/model"))
