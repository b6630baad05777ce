"""Classifiers against closed forms and loops; saving, the model's digest, the command line."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sentemb.classify import (
    Funnel,
    LabelTexts,
    Logistic,
    NearestNeighbours,
    Prototypes,
    TextClassifier,
    WordFrequencies,
)
from sentemb.classify.method import LabelledVectors
from sentemb.encoder import Encoder
from sentemb.errors import DataError, ModelError, PartError
from sentemb.search import SearchIndex

TEXTS = ["the red cat eats", "a dog eats", "the cat plays", "green river", "the city river", "a big blue river",
         "music and song", "a new song", "the guitar song"]
LABELS = ["animal"] * 3 + ["water"] * 3 + ["music_made"] * 3
METHODS = [Logistic(), NearestNeighbours(k=3), Prototypes(), LabelTexts(), WordFrequencies(),
           Funnel(views=[WordFrequencies(), Prototypes()], folds=3)]


def clouds(rows=30, labels=3, seed=0):
    generator = np.random.default_rng(seed)
    targets = np.arange(rows) % labels
    vectors = (np.eye(6)[targets] + 0.6 * generator.normal(size=(rows, 6))).astype(np.float32)
    texts = [f"word{target} text" for target in targets]
    return LabelledVectors(texts=texts, vectors=vectors, targets=targets, labels=[f"l_{i}" for i in range(labels)])


def no_texts(texts):
    raise AssertionError("encodes nothing")


# ------------------------------------------------------------------------------------------------ methods
@pytest.mark.parametrize("labels", [2, 3])
def test_logistic_has_scikit_learns_probabilities(labels):
    data, test = clouds(labels=labels), clouds(labels=labels, seed=1)
    reference = LogisticRegression(C=2.0, max_iter=1000).fit(data.vectors, data.targets)
    method = Logistic(c=2.0)
    ours = method.posteriors(method.fit(data, no_texts), test.texts, test.vectors)
    assert np.allclose(ours, reference.predict_proba(test.vectors), atol=1e-5)


def test_prototypes_by_loop():
    data, test = clouds(), clouds(seed=1)
    found = Prototypes(temperature=0.1).posteriors(Prototypes().fit(data, no_texts), test.texts, test.vectors)
    for vector, row in zip(test.vectors, found, strict=True):
        cosines = []
        for label in range(3):
            members = [v / math.sqrt(sum(x * x for x in v)) for v, t in zip(data.vectors, data.targets, strict=True)
                       if t == label]
            mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
            norms = math.sqrt(sum(x * x for x in mean)) * math.sqrt(sum(x * x for x in vector))
            cosines.append(sum(a * b for a, b in zip(mean, vector, strict=True)) / norms)
        powers = [math.exp(cosine / 0.1) for cosine in cosines]
        assert row.tolist() == pytest.approx([power / sum(powers) for power in powers], rel=1e-4)


def test_neighbours_by_loop():
    data, test, k = clouds(), clouds(seed=1), 4
    method = NearestNeighbours(k=k)
    found = method.posteriors(method.fit(data, no_texts), test.texts, test.vectors)
    for vector, row in zip(test.vectors, found, strict=True):
        cosines = data.vectors @ vector / np.linalg.norm(data.vectors, axis=1) / np.linalg.norm(vector)
        votes = [0.0] * 3
        for place in np.argsort(-cosines)[:k]:
            votes[data.targets[place]] += 1 + float(cosines[place]) / (10 * k)
        assert row.tolist() == pytest.approx([vote / sum(votes) for vote in votes], abs=1e-6)
    assert np.isfinite(NearestNeighbours(k=99).posteriors(method.fit(data, no_texts), test.texts, test.vectors)).all()


def test_label_texts_are_their_names():
    asked = []

    def encode(texts):
        asked.extend(texts)
        return np.eye(6, dtype=np.float32)[: len(texts)]

    data = clouds()
    method = LabelTexts(template="about {label}")
    found = method.posteriors(method.fit(data, encode), ["x"] * 3, np.eye(6, dtype=np.float32)[:3])
    assert asked == ["about l 0", "about l 1", "about l 2"]
    assert found.argmax(axis=1).tolist() == [0, 1, 2]
    with pytest.raises(PartError, match=r"must contain \{label\}"):
        LabelTexts(template="about")


def test_words_find_what_vectors_do_not():
    data = clouds()
    method = WordFrequencies()
    state = method.fit(data, no_texts)
    found = method.posteriors(state, ["word1 text", "word2"], np.zeros((2, 6), np.float32))
    assert found.argmax(axis=1).tolist() == [1, 2]
    assert np.allclose(found.sum(axis=1), 1)


def test_the_funnels_last_classifier_sees_unseen_examples_only():
    seen: list[set[str]] = []

    class Spy(Prototypes):
        def fit(self, data, encode):
            seen.append(set(data.texts))
            return super().fit(data, encode)

        def posteriors(self, state, texts, vectors):
            if len(seen) < 4:
                assert not seen[-1] & set(texts)
            return super().posteriors(state, texts, vectors)

    data = clouds()
    data = LabelledVectors(texts=[f"t{i}" for i in range(30)], vectors=data.vectors, targets=data.targets,
                           labels=data.labels)
    method = Funnel(views=[Spy()], folds=3)
    state = method.fit(data, no_texts)
    assert [len(texts) for texts in seen] == [20, 20, 20, 30]
    # one view: its own probabilities, at unit length, up to the last classifier
    own = Prototypes().posteriors(Prototypes().fit(data, no_texts), data.texts, data.vectors)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    expected = own @ state["weights"].T + state["bias"]
    found = method.posteriors(state, data.texts, data.vectors)
    assert np.allclose(np.log(found) - np.log(found[:, :1]), expected - expected[:, :1], atol=1e-5)


# ------------------------------------------------------------------------------------------------ the classifier
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_saved_and_loaded_it_says_the_same(method, tiny_bert, tmp_path):
    classifier = TextClassifier.fit(TEXTS, LABELS, encoder=tiny_bert, method=method)
    expected = classifier.predict([*TEXTS, "a child"])
    loaded = TextClassifier.load(classifier.save(tmp_path / "c"))
    assert loaded.method == method
    assert loaded.labels == ("animal", "music_made", "water")
    found = loaded.predict([*TEXTS, "a child"])
    assert found.labels == expected.labels
    assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert loaded.predict([]).labels == []
    with pytest.raises(DataError, match="a classifier lies there; give --overwrite"):
        classifier.save(tmp_path / "c")
    classifier.save(tmp_path / "c", overwrite=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="something lies there"):
        classifier.save(tmp_path / "mine", overwrite=True)


def test_examples_join_an_index_without_fitting(tiny_bert, tmp_path):
    TextClassifier.fit(TEXTS, LABELS, encoder=tiny_bert, method=NearestNeighbours(k=1)).save(tmp_path / "c")
    assert TextClassifier.load(tmp_path / "c").predict(["a film"]).labels[0] in LABELS
    with SearchIndex.open(tmp_path / "c" / "index") as index:
        index.upsert([{"text": "a film", "label": "cinema"}])
    assert TextClassifier.load(tmp_path / "c").predict(["a film", "green river"]).labels == ["cinema", "water"]
    with SearchIndex.open(tmp_path / "c" / "index") as index:
        index.upsert([{"text": "the book", "id": "b"}])
    with pytest.raises(DataError, match="id 'b' has no label"):
        TextClassifier.load(tmp_path / "c").predict(["the book"])


def test_a_changed_model_is_refused(tiny_bert, tmp_path):
    model = tmp_path / "model"
    Encoder.load(tiny_bert).save(model)
    TextClassifier.fit(TEXTS, LABELS, encoder=model).save(tmp_path / "c")
    encoder = Encoder.load(model)
    next(encoder.module.backbone.parameters()).data[5] += 1
    encoder.save(model)
    with pytest.raises(ModelError, match=r"c: fitted on the vectors of .*model \(digest .*the model changed.*--model"):
        TextClassifier.load(tmp_path / "c")
    assert TextClassifier.load(tmp_path / "c", model=tiny_bert).labels
    shutil.rmtree(model)
    with pytest.raises(ModelError, match="no such folder"):
        TextClassifier.load(tmp_path / "c")


@pytest.mark.parametrize(("texts", "labels", "method", "message"), [
    (["a", "b"], ["x"], Logistic(), "2 texts and 1 labels"),
    (["a", "b"], ["x", "x"], Logistic(), "only the label 'x'"),
    ([], [], Logistic(), "no examples"),
    (["a", "b", "c"], ["x", "x", "y"], Funnel(), "label 'y' has 1 example; funnel needs 2 of every label"),
])
def test_examples_that_cannot_be_fitted(texts, labels, method, message, tiny_bert):
    with pytest.raises(DataError, match=message):
        TextClassifier.fit(texts, labels, encoder=tiny_bert, method=method)


def test_folders_that_hold_no_classifier(tiny_bert, tmp_path):
    with pytest.raises(DataError, match="no classifier"):
        TextClassifier.load(tmp_path)
    classifier = TextClassifier.fit(TEXTS, LABELS, encoder=tiny_bert)
    classifier.save(tmp_path / "c")
    (tmp_path / "c" / "state.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="missing or damaged"):
        TextClassifier.load(tmp_path / "c")
    facts = json.loads((tmp_path / "c" / "classifier.json").read_text())
    for change, message in (({"format": 9}, "format 9"), ({"labels": []}, "damaged"), ({"model": 3}, "damaged"),
                            ({"method": {"use": "forest"}}, "did you mean|known: ")):
        (tmp_path / "c" / "classifier.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(DataError, match=message):
            TextClassifier.load(tmp_path / "c")


# --------------------------------------------------------------------------------------------- the command line
def test_fit_predict_eval(tiny_bert, tmp_path, capsys):
    from sentemb.cli import main

    def run(*arguments, code=0):
        with pytest.raises(SystemExit) as ended:
            main(["classify", *map(str, arguments)])
        said = capsys.readouterr()
        assert ended.value.code == code, said.err
        return said.err if code else said.out

    file, classifier = tmp_path / "train.jsonl", tmp_path / "c"
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = json.loads(run("fit", file, "--model", tiny_bert, "--method", 'funnel:views=["tfidf","logistic"],folds=3',
                          "-o", classifier, "--json"))
    assert (said["examples"], said["labels"]) == (9, 3)
    lines = [json.loads(line) for line in run("predict", classifier, file).splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    assert all(0 < line["probability"] <= 1 for line in lines)
    run("predict", classifier, file, "-o", tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 9
    scored = json.loads(run("eval", classifier, file, "--json"))
    right = np.mean([line["label"] == label for line, label in zip(lines, LABELS, strict=True)])
    assert scored["main"] == pytest.approx(100 * right)
    assert scored["interval"]["low"] <= scored["main"] <= scored["interval"]["high"]
    assert "macro F1" in run("eval", classifier, file)
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": "a", "label": "unheard"}) + "\n")
    assert "does not know, whose texts count as wrong: unheard" in run("eval", classifier, tmp_path / "new.jsonl")
    assert "known: funnel, knn" in run("fit", file, "--method", "forest", "-o", tmp_path / "x", code=2)
    assert "lies there" in run("fit", file, "--model", tiny_bert, "-o", classifier, code=2)
    assert 'no column "text"' in run("fit", tmp_path / "bad.jsonl", "-o", tmp_path / "x", code=2) if (
        tmp_path / "bad.jsonl").write_text('{"label": 1}\n') else False
    assert not (tmp_path / "x").exists()
