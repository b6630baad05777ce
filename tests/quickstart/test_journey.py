"""The whole journey: on a small corpus with a tiny random encoder, and (slow) as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sentemb import Recipe
from sentemb.errors import DataError
from sentemb.quickstart.journey import QUESTIONS, quickstart
from sentemb.search import SearchIndex

_VERBS = "eats plays runs made found called used".split()
_THINGS = "cat dog child man woman guitar music river house song film book team game school".split()
_COLOURS = "red blue green big small first new".split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Functions whose names share words with their docstrings, so that a tiny encoder can learn the task."""
    root = tmp_path_factory.mktemp("corpus")
    for i, thing in enumerate(_THINGS):
        functions = [
            f'def {verb}_{colour}_{thing}():\n    """The {colour} {thing} is what one {verb} with the world {i}."""\n'
            for verb in _VERBS
            for colour in _COLOURS
        ]
        (root / f"{thing}.py").write_text("\n".join(functions))
    return root


def journey(output: Path, corpus: Path, tiny_bert: Path, **options):
    settings = {
        "pairs": 384, "documents": 150, "queries": 100, "model": str(tiny_bert), "roots": [corpus],
        "recipe": Recipe.load("quickstart", ["train.learning_rate=2e-3", "train.batch_size=16", "train.epochs=3"]),
    } | options  # fmt: skip
    return quickstart(output, **settings)


def test_the_journey(tmp_path, corpus, tiny_bert, caplog):
    caplog.set_level("INFO", "sentemb")
    result = journey(tmp_path / "out", corpus, tiny_bert)
    # a random encoder learns: held-out queries find their docstrings far better than before
    before, after = result.before.main, result.after.main
    assert after > before + 5
    assert result.gain.difference == pytest.approx((after - before) / 100)
    assert result.gain.interval.low > 0
    assert result.gain.p < 0.01
    assert "384 training pairs" in caplog.text
    assert "held out: 100 queries, 150 docstrings" in caplog.text
    assert f"after training: mrr@10 {after:.2f}" in caplog.text

    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert stored["after"]["mrr@10"] == pytest.approx(after)
    assert stored["mrr@10"]["low"] == pytest.approx(result.gain.interval.low)
    assert stored["task"] == {"documents": 150, "queries": 100, "train_pairs": 384}

    assert set(result.answers) == set(QUESTIONS)
    assert all(len(hits) == 3 for hits in result.answers.values())
    with SearchIndex.open(tmp_path / "out" / "index") as index:  # loads the tuned model by itself
        assert len(index) == 384 + 150
        hit = index.search("The red cat is what one eats with the world 0.", k=1)[0]
        assert hit.text == "The red cat is what one eats with the world 0."
        assert hit.metadata["module"] == "cat"


def test_another_folder_is_never_replaced(tmp_path, corpus, tiny_bert):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("irreplaceable")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="holds something else than a quickstart"):
            journey(tmp_path / "mine", corpus, tiny_bert, overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "irreplaceable"


def test_an_earlier_quickstart_is_replaced_when_asked(tmp_path, corpus, tiny_bert):
    old = tmp_path / "out"
    (old / "task").mkdir(parents=True)
    (old / "train.jsonl").write_text("")
    with pytest.raises(DataError, match="holds a quickstart already; replace it with --overwrite"):
        journey(old, corpus, tiny_bert)
    journey(old, corpus, tiny_bert, overwrite=True, recipe=Recipe.load("quickstart", ["train.max_steps=1"]))
    assert (old / "train.jsonl").read_text() != ""


def test_one_that_was_stopped_goes_on(tmp_path, corpus, tiny_bert, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    out, short = tmp_path / "out", Recipe.load("quickstart", ["train.max_steps=2"])
    with monkeypatch.context() as patch:
        patch.setattr("sentemb.quickstart.journey._index_and_ask", stop)
        with pytest.raises(KeyboardInterrupt):
            journey(out, corpus, tiny_bert, recipe=short)
    trained = (out / "run" / "metrics.jsonl").read_bytes()
    result = journey(out, corpus, tiny_bert, recipe=short, resume=True)
    assert (out / "run" / "metrics.jsonl").read_bytes() == trained  # was not trained again
    again = journey(out, corpus, tiny_bert, recipe=short, resume=True)  # also over an index that is there
    assert again.after.main == result.after.main
    assert (out / "result.json").is_file()


def test_too_small_a_corpus(tmp_path, tiny_bert):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "one.py").write_text('def f():\n    """One docstring is not enough."""\n')
    with pytest.raises(DataError, match="only 1 docstrings found"):
        journey(tmp_path / "out", tmp_path / "site", tiny_bert)


@pytest.mark.slow
def test_as_a_user_runs_it(tmp_path, minilm):
    """The real encoder and this machine's packages; a tenth of the pairs is enough for a significant gain."""
    done = subprocess.run(
        [sys.executable, "-m", "sentemb", "quickstart", "--output", "out", "--pairs", "960", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["before"]["mrr@10"] > 30
    assert result["mrr@10"]["low"] > 0
    assert result["mrr@10"]["p"] < 0.01
    assert result["after"]["mrr@10"] > result["bm25"]["mrr@10"]
    answer = subprocess.run(
        [sys.executable, "-m", "sentemb", "search", "out/index", "open a compressed file", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
