"""STS protocols on small files; the real figures are in test_acceptance.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from sentemb.errors import EvaluationError, NumericError
from sentemb.evaluate.reading.pairs import PairSet, read_pairs
from sentemb.evaluate.tasks.sts import SEVEN, evaluate_sts, sts_dev, sts_sets


class Letters:
    """Counts letters, with an irrational weight each so that cosines rarely tie. Remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked.append(list(texts))
        counts = np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts])
        return (counts * np.sqrt(np.arange(2, 10))).astype(np.float32)


def pair_set(name="made", subset=None):
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefgh"), 6)) for _ in range(30)]
    first, second = list(generator.choice(words, 40)), list(generator.choice(words, 40))
    return PairSet(name, first, second, generator.integers(0, 6, 40).astype(float), subset)


def cosine(pairs):
    one, two = (Letters().encode(side).astype(float) for side in (pairs.sentence1, pairs.sentence2))
    product = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    return product.round(12)  # the same letters in another order must tie


def test_one_deduplicated_pass_over_all_sets():
    letters = Letters()
    sets = [pair_set("one"), pair_set("two")]
    evaluate_sts(letters, sets)
    assert len(letters.asked) == 1
    assert sorted(letters.asked[0]) == sorted({t for s in sets for t in [*s.sentence1, *s.sentence2]})


def test_scores_as_scipy():
    pairs = pair_set()
    (score,) = evaluate_sts(Letters(), [pairs])
    assert score.main == pytest.approx(100 * stats.spearmanr(cosine(pairs), pairs.score).statistic, abs=1e-4)
    assert score.pearson["cosine"] == pytest.approx(100 * stats.pearsonr(cosine(pairs), pairs.score)[0], abs=1e-4)
    assert set(score.spearman) == {"cosine", "dot", "euclidean", "manhattan"}


def test_aggregations():
    subset = ["x"] * 10 + ["y"] * 30
    pairs = pair_set(subset=subset)
    parts = [stats.spearmanr(cosine(pairs)[rows], pairs.score[rows]).statistic for rows in (slice(10), slice(10, 40))]
    by = {how: evaluate_sts(Letters(), [pairs], aggregation=how)[0] for how in ("all", "mean", "wmean")}
    assert by["mean"].main == pytest.approx(50 * sum(parts), abs=1e-4)
    assert by["wmean"].main == pytest.approx(100 * (10 * parts[0] + 30 * parts[1]) / 40, abs=1e-4)
    assert by["all"].main == pytest.approx(100 * stats.spearmanr(cosine(pairs), pairs.score).statistic, abs=1e-4)
    assert by["all"].subsets == pytest.approx({"x": 100 * parts[0], "y": 100 * parts[1]}, abs=1e-4)


def test_unknown_aggregation():
    with pytest.raises(EvaluationError, match="did you mean wmean"):
        evaluate_sts(Letters(), [pair_set()], aggregation="wmeen")


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
    (pairs,) = sts_sets(tmp_path, protocol, names=["STSBenchmark"])
    assert pairs.name == "STSBenchmark"
    assert len(pairs) == 40
    assert pairs.subset is None  # SentEval scores STS-B as one set
    monkeypatch.setenv("SENTEMB_DATA", str(tmp_path))
    expected = evaluate_sts(Letters(), [pairs])[0].main
    assert sts_dev("STSBenchmark", protocol)(Letters()) == pytest.approx(expected)
    assert sts_dev(tmp_path / dev)(Letters()) == pytest.approx(expected)
    with pytest.raises(EvaluationError, match=r"missing for protocol .*STS12|missing for protocol .*sts12-sts"):
        sts_sets(tmp_path, protocol)


def test_the_seven():
    assert SEVEN == ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")


@pytest.mark.parametrize(
    ("protocol", "names", "split", "message"),
    [
        ("simces", None, "test", "did you mean simcse"),
        ("mteb", ["STS17"], "test", 'no set "STS17"; known'),
        ("mteb", ["STS12"], "dev", 'no set "STS12"'),
        ("mteb", None, "train", 'no split "train"'),
    ],
)
def test_unknown_names(tmp_path, protocol, names, split, message):
    with pytest.raises(EvaluationError, match=message):
        sts_sets(tmp_path, protocol, names=names, split=split)


def test_no_root(monkeypatch):
    monkeypatch.delenv("SENTEMB_DATA", raising=False)
    with pytest.raises(EvaluationError, match="--data-dir"):
        sts_sets(None, "mteb")


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
        evaluate_sts(embedder(function), [pair_set()])


def test_infinity_beside_its_negative_is_found():
    def encode(texts):
        vectors = np.ones((len(texts), 4), dtype=np.float32)
        vectors[2, 1] = np.inf
        return vectors

    with pytest.raises(NumericError, match="text 2"):
        evaluate_sts(embedder(encode), [pair_set()])


def test_collapsed_encoder_is_an_error_of_the_monitor(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_text(rows_of(pair_set()))
    with pytest.raises(EvaluationError, match="collapsed"):
        sts_dev(path)(embedder(lambda texts: np.ones((len(texts), 4), dtype=np.float32)))


def test_all_in_one_file(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(rows_of(pair_set(subset=["u"] * 20 + ["v"] * 20)))
    assert set(evaluate_sts(Letters(), [read_pairs(path)])[0].subsets) == {"u", "v"}
