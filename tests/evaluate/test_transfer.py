"""Transfer and geometry against scikit-learn, closed forms and plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import v_measure_score
from sklearn.neighbors import KNeighborsClassifier

from sentemb.errors import DataError, EvaluationError, PartError
from sentemb.evaluate.opening import open_model
from sentemb.evaluate.reading import LabelledTexts, read_labelled, read_splits
from sentemb.evaluate.task import EvalSetup
from sentemb.evaluate.tasks.classification import Classification, check_labels
from sentemb.evaluate.tasks.clustering import Clustering
from sentemb.evaluate.tasks.geometry import geometry, hubness, iso_score, principal_variances, uniformity


def blobs(count=120, classes=3, spread=0.4, seed=0):
    """Texts, labels and the vectors behind them: gaussian clouds around distinct axes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    vectors = np.eye(8)[labels] + spread * generator.normal(size=(count, 8))
    texts = [f"text {seed} {i}" for i in range(count)]
    names = [str(label) for label in labels]
    data = LabelledTexts(texts=texts, labels=names, source="blobs.jsonl")
    return data, vectors.astype(np.float32)


def model_of(*sets):
    table = {text: vector for data, vectors in sets for text, vector in zip(data.texts, vectors, strict=True)}
    return open_model(lambda texts: np.stack([table[text] for text in texts]))


def classify(model, train, test, method, *, seed=42):
    task = Classification(path="blobs", method=method)
    return task.run((train, test), model, EvalSetup(resamples=100, seed=seed))


def cluster(model, data):
    return Clustering(path="blobs").run(data, model, EvalSetup())


@pytest.mark.parametrize("method", ["logistic", "fewshot", "knn"])
def test_separable_classes_are_told_apart(method):
    train, test = blobs(), blobs(60, seed=1)
    score = classify(model_of(train, test), train[0], test[0], method)
    assert score.main > 85
    shuffled = LabelledTexts(
        texts=test[0].texts, labels=list(np.random.default_rng(0).permutation(test[0].labels))
    )
    assert classify(model_of(train, test), train[0], shuffled, method).main < 60


def test_nearest_neighbours_as_scikit_learn():
    train, test = blobs(spread=1.0), blobs(90, spread=1.0, seed=1)
    score = classify(model_of(train, test), train[0], test[0], "knn")
    reference = KNeighborsClassifier(5, metric="cosine", weights=lambda d: 1 + (1 - d) / 50)
    reference.fit(train[1], train[0].labels)
    assert score.main == pytest.approx(100 * reference.score(test[1], test[0].labels))


def test_cross_validation_scores_every_text_once():
    data = blobs()
    score = classify(model_of(data), data[0], None, "logistic")
    assert len(score.items.values) == 120
    assert set(score.items.values) <= {0.0, 1.0}
    assert score.main == pytest.approx(100 * np.mean(score.items.values))


def test_clustering_finds_the_clouds():
    data = blobs(spread=0.05)
    score = cluster(model_of(data), data[0])
    assert score.main == pytest.approx(100)
    noise = blobs(spread=30.0)
    assert cluster(model_of(noise), noise[0]).main < 30
    assert v_measure_score([0, 0, 1, 1], [1, 1, 0, 0]) == 1.0


def test_same_seed_same_score():
    train, test = blobs(spread=1.0), blobs(60, spread=1.0, seed=1)
    scores = [classify(model_of(train, test), train[0], test[0], "fewshot", seed=s).main for s in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_refusals(tmp_path):
    (data, _), (test, _) = blobs(), blobs(60, classes=4, seed=1)
    one = LabelledTexts(texts=["a", "b"], labels=["x", "x"], source="one.jsonl")
    single = LabelledTexts(texts=["a", "b", "c"], labels=["x", "y", "y"], source="single.jsonl")
    embed = open_model(lambda texts: np.random.default_rng(0).random((len(texts), 4)).astype(np.float32))
    with pytest.raises(EvaluationError, match="labels that training lacks: 3"):
        check_labels(data, test)
    with pytest.raises(EvaluationError, match="only the label 'x'"):
        check_labels(one, None)
    with pytest.raises(EvaluationError, match="single text"):
        classify(embed, single, None, "logistic")
    rows = [{"text": text, "label": label} for text, label in zip(data.texts, data.labels, strict=True)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(EvaluationError, match="needs a train and a test split"):
        Classification(path=str(tmp_path / "all.jsonl"), method="fewshot").load(EvalSetup())
    with pytest.raises(PartError, match='method = "svm": must be'):
        Classification(path="x", method="svm")


def test_labelled_files(tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": "x"}]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, test = read_splits(tmp_path)
    assert train.labels == ["1", "x"]
    assert test is not None
    assert read_splits(tmp_path / "train.jsonl")[1] is None
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match='no split "test"; known: train'):
        read_splits(tmp_path)
    for bad, message in (
        ('{"text": "a"}', 'column "label" holds None'),
        ('{"text": "a", "label": [1]}', "one label a row"),
        ('{"label": 1}', 'no column "text"'),
        ("", "no rows"),
    ):
        (tmp_path / "bad.jsonl").write_text(bad)
        with pytest.raises(DataError, match=message):
            read_labelled(tmp_path / "bad.jsonl")


# ------------------------------------------------------------------------------------------------ geometry
def test_uniformity_by_loop():
    vectors = np.random.default_rng(0).normal(size=(20, 5))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    terms = [np.exp(-2 * np.sum((unit[i] - unit[j]) ** 2)) for i in range(20) for j in range(20) if i != j]
    assert uniformity(unit) == pytest.approx(np.log(np.mean(terms)), abs=1e-12)


def test_isoscore_at_its_ends():
    generator = np.random.default_rng(0)
    even = generator.normal(size=(20_000, 10)).astype(np.float32)
    line = np.outer(generator.normal(size=1000), np.ones(10)).astype(np.float32)
    half = even * (np.arange(10) < 5)
    assert iso_score(principal_variances(even)) == pytest.approx(1.0, abs=0.01)
    assert iso_score(principal_variances(line)) == pytest.approx(0.0, abs=1e-6)
    assert iso_score(principal_variances(half.astype(np.float32))) == pytest.approx(
        (5 - 1) / 9, abs=0.01
    )  # the paper's: dimensions in use


def test_hubness_by_loop():
    vectors = np.random.default_rng(1).normal(size=(60, 6)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    count = np.bincount(np.argsort(-similarity, axis=1)[:, :10].ravel(), minlength=60).astype(float)
    expected = np.mean((count - count.mean()) ** 3) / count.std() ** 3
    assert hubness(unit) == pytest.approx(expected, abs=1e-9)


def test_figures_of_an_even_space():
    vectors = np.random.default_rng(2).normal(size=(800, 16)).astype(np.float32)
    found = geometry(vectors, pairs=(vectors[:50], vectors[:50]))
    assert found["alignment"] == pytest.approx(0.0, abs=1e-9)
    assert found["average_cosine"] == pytest.approx(0.0, abs=0.01)
    assert 15 < found["effective_rank"] <= 16


def test_spaces_without_a_geometry():
    with pytest.raises(EvaluationError, match="at least 3"):
        geometry(np.ones((2, 4), np.float32))
    with pytest.raises(EvaluationError, match="collapsed"):
        geometry(np.ones((9, 4), np.float32))
    with pytest.raises(EvaluationError, match="1 vectors are zero"):
        geometry(np.concatenate([np.eye(4), np.zeros((1, 4))]).astype(np.float32))
