"""Tasks as parts: one deduplicated pass, scores that do not depend on company, tasks from outside, pairs, reranking."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import hub_data
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from sentemb.errors import EvaluationError, PartError
from sentemb.evaluate import Clustering, EvalSetup, Geometry, Pairs, Reranking, Retrieval, Sts, Task, evaluate_model
from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.evaluation import check_dev, dev_score
from sentemb.evaluate.opening import open_model
from sentemb.evaluate.report import summary
from sentemb.evaluate.tasks.pairs import best_threshold
from sentemb.parts import room, to_table


def letters(texts):
    """Letter pairs, hashed: a real embedder without a checkpoint."""
    out = np.zeros((len(texts), 64), dtype=np.float32)
    for row, text in enumerate(texts):
        for a, b in pairwise(text):
            out[row, (ord(a) * 31 + ord(b)) % 64] += 1
        out[row, 0] += 0.01
    return out


class Remembering:
    def __init__(self):
        self.calls = []

    def encode(self, texts):
        self.calls.append(list(texts))
        return letters(texts)


@pytest.fixture
def data(tmp_path):
    """A data folder with four kinds of data."""
    for make in (hub_data.sts, hub_data.retrieval, hub_data.classification, hub_data.reranking):
        make(tmp_path)
    pairs = [{**row, "label": int(row["score"] > 2) ^ (i % 7 == 0)} for i, row in enumerate(hub_data.pairs())]
    hub_data.jsonl(tmp_path / "duplicates.jsonl", pairs)
    return tmp_path


def some_tasks(root):
    return [
        Sts(path=str(root / "mteb/stsbenchmark-sts/test.jsonl")),
        Pairs(path=str(root / "duplicates.jsonl")),
        Retrieval(path=str(root / "mteb/nfcorpus"), metric="mrr@10", baselines=False),
        Reranking(path=str(root / "mteb/AskUbuntuDupQuestions")),
    ]


@pytest.mark.parametrize("name", sorted(room("tasks").names()))
def test_every_listed_task_is_documented(name):
    cls = room("tasks").find(name)
    assert issubclass(cls, Task)
    assert cls.__doc__.splitlines()[0].strip().endswith(".")
    assert room("tasks").name_of(cls) == name


def test_a_task_is_a_value(data):
    for task in some_tasks(data):
        assert room("tasks").make(to_table(task)) == task
        assert eval(repr(task)) == task


def test_texts_of_all_tasks_in_one_deduplicated_pass(data):
    model = Remembering()
    results = evaluate_model(model, some_tasks(data), resamples=0)
    assert not results.failures
    assert len(model.calls) == 1
    assert len(set(model.calls[0])) == len(model.calls[0]) == results.texts


def test_scores_do_not_depend_on_which_other_tasks_ran(data, tiny_bert):
    together = evaluate_model(str(tiny_bert), some_tasks(data), precision="fp32", resamples=20)
    assert not together.failures
    for task, joint in zip(some_tasks(data), together.tasks, strict=True):
        (alone,) = evaluate_model(str(tiny_bert), [task], precision="fp32", resamples=20).tasks
        assert alone.main == pytest.approx(joint.main, abs=0.005)
        assert alone.items.fingerprint == joint.items.fingerprint


OUTSIDE = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sentemb.maths.neighbours import top
from sentemb.evaluate import Items, Task, Texts, fingerprint


@dataclass(frozen=True, kw_only=True)
class Acronyms(Task):
    """How often an acronym is nearest to its own long form (lines ``acronym<tab>long form``)."""

    task_type: ClassVar[str] = "Acronyms"
    path: str
    most: int = 100

    def load(self, setup):
        lines = setup.data.path(self.path).read_text(encoding="utf-8").splitlines()
        return [line.split("\\t") for line in lines][: self.most]

    def texts(self, data):
        return [Texts(texts=[text for pair in data for text in pair])]

    def run(self, data, model, setup):
        short, long = (self.encode(model, side) for side in zip(*data, strict=True))
        nearest = top(short, long, 1, metric=model.identity.similarity).ids[:, 0]
        hits = (nearest == np.arange(len(data))).astype(float)
        items = Items(fingerprint=fingerprint(*zip(*data)), values=hits.tolist())
        return self.result(setup, metric="accuracy", main=100 * hits.mean(), items=items)
'''


def test_a_task_from_outside(tmp_path, monkeypatch):
    """One file of a stranger's: in a suite, on the command line's terms, in [[dev]]."""
    (tmp_path / "acronyms.py").write_text(OUTSIDE)
    (tmp_path / "words.tsv").write_text("abab\tab ab ab\nkqkq\tkq kq kq\nzszs\tzs zs zs\n")
    (tmp_path / "suite.toml").write_text('[[tasks]]\nuse = "acronyms:Acronyms"\npath = "words.tsv"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "acronyms", raising=False)
    monkeypatch.delenv("SENTEMB_DATA", raising=False)
    (result,) = evaluate_model(letters, "suite.toml").tasks
    assert (result.task, result.kind, result.main, result.count) == ("words", "Acronyms", 100.0, 3)
    assert result.interval.low == 100
    task = room("tasks").make({"use": "acronyms:Acronyms", "path": "words.tsv", "most": 2})
    assert dev_score([task])(Remembering()).scores == {"words": 100.0}
    with pytest.raises(EvaluationError, match="no such file"):
        evaluate_model(letters, [type(task)(path="absent.tsv")])
    with pytest.raises(PartError, match='most = "two"'):
        type(task)(path="words.tsv", most="two")


# ------------------------------------------------------------------------------------------------- pairs
def test_pairs_as_scikit_learn(data):
    task = Pairs(path=str(data / "duplicates.jsonl"))
    pairs = task.load(EvalSetup())
    result = task.run(pairs, open_model(letters), EvalSetup(resamples=100))
    one, two = (letters(side).astype(float) for side in (pairs.sentence1, pairs.sentence2))
    cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    expected = 100 * average_precision_score(pairs.score, cosine.round(12))
    assert result.main == pytest.approx(expected, abs=1e-3)
    assert result.interval.low < result.main < result.interval.high
    accuracy = task.__class__(path=task.path, metric="accuracy").run(pairs, open_model(letters), EvalSetup())
    assert accuracy.main == pytest.approx(100 * np.mean(accuracy.items.values))


def test_best_threshold_by_loop():
    generator = np.random.default_rng(0)
    for _ in range(20):
        similarity = generator.integers(0, 6, 30) / 5
        gold = generator.integers(0, 2, 30).astype(float)
        gold[:2] = 0, 1
        accuracy, f1, right = best_threshold(similarity, gold)
        taken = [similarity >= threshold for threshold in np.unique(similarity)]
        assert accuracy == pytest.approx(max(np.mean(one == gold) for one in taken))
        assert f1 == pytest.approx(max(f1_score(gold, one) for one in taken))
        assert right.mean() == pytest.approx(accuracy)


def test_pairs_need_both_labels(tmp_path):
    hub_data.jsonl(tmp_path / "p.jsonl", [{"sentence1": "a", "sentence2": "b", "label": 1}])
    with pytest.raises(EvaluationError, match="labels 0 and 1"):
        Pairs(path=str(tmp_path / "p.jsonl")).load(EvalSetup())


# --------------------------------------------------------------------------------------------- reranking
def test_reranking_scores_the_candidates_alone(data):
    task = Reranking(path=str(data / "mteb/AskUbuntuDupQuestions"), metric="mrr@10")
    judged, candidates = task.load(EvalSetup())
    result = task.run((judged, candidates), open_model(letters), EvalSetup(resamples=50))
    reciprocal = []
    for query, text in judged.queries.items():
        scores = {}
        for document in candidates[query]:
            a, b = letters([text])[0], letters([judged.documents[document]])[0]
            scores[document] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        ranked = sorted(scores, key=lambda document: -scores[document])
        hits = [rank for rank, document in enumerate(ranked, 1) if judged.qrels[query].get(document, 0) > 0]
        reciprocal.append(1 / hits[0] if hits and hits[0] <= 10 else 0.0)
    assert result.main == pytest.approx(100 * np.mean(reciprocal))


def test_reranking_without_candidates(data):
    folder = data / "mteb/nfcorpus"
    task = Reranking(path=str(folder))
    with pytest.raises(EvaluationError, match=r"top_ranked\.jsonl"):
        task.missing(EvalSetup())
    (folder / "top_ranked.jsonl").write_text(json.dumps({"query-id": "q0", "corpus-ids": ["nowhere"]}) + "\n")
    with pytest.raises(Exception, match=r'query "q0" names 1 unknown documents, e\.g\. "nowhere"'):
        task.load(EvalSetup())


# --------------------------------------------------------------------------------------------------- dev
def test_dev_takes_several_tasks_and_their_mean(data):
    sts, pairs, retrieval, _ = some_tasks(data)
    model = Remembering()
    tasks = [sts, pairs, retrieval, Clustering(path=str(data / "mteb/banking77"), name="test")]
    found = dev_score(tasks)(model)
    assert list(found.scores) == ["test", "duplicates", "nfcorpus", "test 2"]
    assert found.value == pytest.approx(np.mean(list(found.scores.values())))
    for task, score in zip(tasks, found.scores.values(), strict=True):
        (alone,) = evaluate_model(letters, [task], resamples=0).tasks
        assert score == pytest.approx(alone.main)
    assert len(model.calls) == 1  # all texts of all tasks at once


def test_dev_reads_its_data_once(data):
    score = dev_score(some_tasks(data))
    first = score(Remembering())
    for path in data.rglob("*.jsonl"):
        path.unlink()
    assert score(Remembering()) == first


def test_dev_refuses_before_training(data):
    tasks = [Sts(path="absent.csv"), Retrieval(path="nowhere"), Geometry(path=str(data / "duplicates.jsonl"))]
    with pytest.raises(EvaluationError) as error:
        dev_score(tasks)
    for word in ("absent.csv", "nowhere", "Geometry score is a description"):
        assert word in str(error.value)
    assert len(check_dev(tasks)) == 3
    with pytest.raises(EvaluationError, match="no task"):
        dev_score([])


def test_dev_of_an_encoder_is_its_own_evaluation(data, tiny_bert):
    from sentemb.encoder import Encoder

    task = some_tasks(data)[0]
    encoder = Encoder.load(tiny_bert)
    (result,) = evaluate_model(encoder, [task], precision="fp32", resamples=0).tasks
    assert dev_score([task], precision="fp32")(encoder).value == pytest.approx(result.main, abs=1e-3)


# ------------------------------------------------------------------------------------------- data folder
def test_texts_that_were_cut_are_counted(tmp_path, tiny_bert):
    file = tmp_path / "pairs.tsv"
    long = "the dog runs " * 100
    file.write_text(f"sentence1\tsentence2\tscore\n{long}\tthe cat\t1\n{long}\ta house\t2\nred\tblue\t3\n")
    results = evaluate_model(str(tiny_bert), [Sts(path=str(file))], resamples=0)
    assert results.cut == 1  # the text twice is one text
    assert "1 texts were cut" in "\n".join(summary([results]))
    assert evaluate_model(lambda texts: np.eye(len(texts)), [Sts(path=str(file))], resamples=0).cut == 0


def test_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("SENTEMB_DATA", raising=False)
    assert DataFolder.find().root is None
    monkeypatch.setenv("SENTEMB_DATA", str(tmp_path))
    assert DataFolder.find().hub == tmp_path
    (tmp_path / "hub").mkdir()
    assert DataFolder.find(tmp_path).hub == tmp_path / "hub"
    with pytest.raises(EvaluationError, match="no such data folder"):
        DataFolder.find(tmp_path / "absent")
    with pytest.raises(EvaluationError, match="--data-dir"):
        DataFolder().required()


def test_a_path_in_the_working_folder_does_not_silently_win(tmp_path, monkeypatch):
    here, root = tmp_path / "here", tmp_path / "data"
    for folder in (here, root / "hub"):
        (folder / "mteb").mkdir(parents=True)
        (folder / "mteb/x.jsonl").write_text("{}\n")
    monkeypatch.chdir(here)
    data = DataFolder.find(root)
    with pytest.raises(EvaluationError, match=r"found twice, .*here/mteb/x.jsonl and .*data/hub/mteb/x.jsonl"):
        data.path("mteb/x.jsonl")
    assert data.path("./mteb/x.jsonl").resolve() == here / "mteb/x.jsonl"
    (here / "mteb/x.jsonl").unlink()
    assert data.path("mteb/x.jsonl") == root / "hub/mteb/x.jsonl"
    (root / "hub/mteb/x.jsonl").unlink()
    with pytest.raises(EvaluationError, match="looked for"):
        data.path("mteb/x.jsonl")
    monkeypatch.chdir(root)
    (root / "y.csv").write_text("a\n")  # the working folder is the data folder: one file, found once
    assert data.path("y.csv") == root / "y.csv"
