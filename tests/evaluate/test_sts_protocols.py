"""STS protocols on small files; the real figures are in test_acceptance.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from sentemb.errors import EvaluationError, NumericError, PartError
from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.evaluation import dev_score, evaluate_model
from sentemb.evaluate.opening import open_model
from sentemb.evaluate.reading import PairSet, read_pairs
from sentemb.evaluate.task import EvalSetup
from sentemb.evaluate.tasks.sts import SEVEN, Sts


class Letters:
    """Counts letters, with an irrational weight each so that cosines rarely tie. Remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked.append(list(texts))
        counts = np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts])
        return (counts * np.sqrt(np.arange(2, 10))).astype(np.float32)


def pair_set(subset=None):
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefgh"), 6)) for _ in range(30)]
    first, second = list(generator.choice(words, 40)), list(generator.choice(words, 40))
    score = generator.integers(0, 6, 40).astype(float)
    return PairSet(sentence1=first, sentence2=second, score=score, subset=subset)


def score_of(embedder, pairs, **settings):
    """What the task makes of pairs that are read already."""
    return Sts(path="pairs.jsonl", **settings).run(pairs, open_model(embedder), EvalSetup(resamples=50))


def cosine(pairs):
    one, two = (Letters().encode(side).astype(float) for side in (pairs.sentence1, pairs.sentence2))
    product = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    return product.round(12)  # the same letters in another order must tie


def test_one_deduplicated_pass_over_all_sets(tmp_path):
    letters = Letters()
    sets = {"one": pair_set(), "two": pair_set(subset=["s"] * 40)}
    for name, pairs in sets.items():
        (tmp_path / f"{name}.jsonl").write_text(rows_of(pairs))
    evaluate_model(letters, [Sts(path=str(tmp_path / f"{name}.jsonl")) for name in sets], resamples=0)
    assert len(letters.asked) == 1
    assert sorted(letters.asked[0]) == sorted({t for s in sets.values() for t in [*s.sentence1, *s.sentence2]})


def test_scores_as_scipy():
    pairs = pair_set()
    score = score_of(Letters(), pairs)
    assert score.main == pytest.approx(100 * stats.spearmanr(cosine(pairs), pairs.score).statistic, abs=1e-4)
    pearson = 100 * stats.pearsonr(cosine(pairs), pairs.score)[0]
    assert score.metrics["cosine_pearson"] == pytest.approx(pearson, abs=1e-4)
    names = {name.removesuffix("_spearman") for name in score.metrics if name.endswith("_spearman")}
    assert names == {"cosine", "dot", "euclidean", "manhattan"}
    chosen = score_of(Letters(), pairs, metric="dot_spearman")
    assert chosen.main == score.metrics["dot_spearman"]
    assert chosen.interval.low < chosen.main < chosen.interval.high
    assert score_of(Letters(), pairs, metric="cosine_pearson").interval is None


def test_subsets_are_scored_apart():
    pairs = pair_set(subset=["x"] * 10 + ["y"] * 30)
    metrics = score_of(Letters(), pairs).metrics
    for name, rows in (("x", slice(10)), ("y", slice(10, 40))):
        expected = stats.spearmanr(cosine(pairs)[rows], pairs.score[rows]).statistic
        assert metrics[f"subset {name}"] == pytest.approx(100 * expected, abs=1e-4)


def rows_of(pairs):
    subset = pairs.subset or ["s"] * len(pairs)
    return "".join(
        json.dumps({"sentence1": a, "sentence2": b, "score": s, "subset": u}) + "\n"
        for a, b, s, u in zip(pairs.sentence1, pairs.sentence2, pairs.score, subset, strict=True)
    )


@pytest.mark.parametrize(
    ("protocol", "test", "dev"),
    [
        ("simcse", "sts-simcse/STSBenchmark-test.jsonl", "sts-simcse/STSBenchmark-dev.jsonl"),
        ("mteb", "hub/mteb/stsbenchmark-sts/test.jsonl", "hub/mteb/stsbenchmark-sts/validation.jsonl"),
    ],
)
def test_layouts(tmp_path, monkeypatch, protocol, test, dev):
    for path in (test, dev):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(rows_of(pair_set()))
    data = DataFolder.find(tmp_path)
    pairs = Sts(protocol=protocol, sets=("STSBenchmark",)).load(EvalSetup(data=data))
    assert len(pairs) == 40
    assert pairs.subset is None  # SentEval scores STS-B as one set
    monkeypatch.setenv("SENTEMB_DATA", str(tmp_path))
    expected = score_of(Letters(), pairs).main
    assert dev_score([Sts(protocol=protocol, split="dev")])(Letters()).value == pytest.approx(expected)
    assert dev_score([Sts(path=dev)])(Letters()).value == pytest.approx(expected)
    (task,) = Sts(protocol=protocol, sets=("STS12",)).expand(EvalSetup())
    with pytest.raises(EvaluationError, match=r"missing for protocol .*(STS12|sts12-sts)"):
        task.missing(EvalSetup(data=data))


def test_the_seven():
    assert SEVEN == ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")


def test_what_a_protocol_stands_for():
    """All seven of test; of dev the set that every paper tunes on."""
    assert [task.label for task in Sts(protocol="mteb").expand(EvalSetup())] == list(SEVEN)
    assert [task.label for task in Sts(protocol="simcse", split="dev").expand(EvalSetup())] == ["STSBenchmark"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "simces"}, "must be 'simcse' or 'mteb'"),
        ({"protocol": "mteb", "split": "train"}, "must be 'test' or 'dev'"),
        ({}, 'give path = "FILE", or protocol'),
        ({"path": "x.csv", "protocol": "mteb"}, 'give path = "FILE", or protocol'),
        ({"path": "x.csv", "sets": ["STS12"]}, "sets belong to a protocol"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(PartError, match=message):
        Sts(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "mteb", "sets": ["STS17"]}, 'no set "STS17"; known'),
        ({"protocol": "mteb", "sets": ["STS12"], "split": "dev"}, 'no set "STS12"'),
    ],
)
def test_unknown_sets(settings, message):
    with pytest.raises(EvaluationError, match=message):
        Sts(**settings).expand(EvalSetup())


def test_no_root(monkeypatch):
    monkeypatch.delenv("SENTEMB_DATA", raising=False)
    with pytest.raises(EvaluationError, match="--data-dir"):
        evaluate_model(Letters(), [Sts(protocol="mteb")])


def embedder(function):
    return type("Bad", (), {"encode": lambda self, texts: function(texts)})()


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda texts: np.full((len(texts), 4), np.nan), NumericError, r"NaN or infinite values for .* text 0"),
        (lambda texts: np.zeros((len(texts) - 1, 4)), EvaluationError, "one vector a text"),
        (lambda texts: np.zeros(len(texts)), EvaluationError, "one vector a text"),
        (lambda texts: [["a"]] * len(texts), EvaluationError, "array of numbers"),
    ],
)
def test_bad_vectors(function, error, message):
    with pytest.raises(error, match=message):
        score_of(embedder(function), pair_set())


def test_infinity_beside_its_negative_is_found():
    def encode(texts):
        vectors = np.ones((len(texts), 4), dtype=np.float32)
        vectors[2, 1] = np.inf
        return vectors

    with pytest.raises(NumericError, match="text 2"):
        score_of(embedder(encode), pair_set())


def test_collapsed_encoder_is_an_error_of_the_monitor(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_text(rows_of(pair_set()))
    with pytest.raises(EvaluationError, match="collapsed"):
        dev_score([Sts(path=str(path))])(embedder(lambda texts: np.ones((len(texts), 4), dtype=np.float32)))


def test_all_in_one_file(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(rows_of(pair_set(subset=["u"] * 20 + ["v"] * 20)))
    assert {"subset u", "subset v"} <= set(score_of(Letters(), read_pairs(path)).metrics)
