"""Retrieval folders in BEIR's and the hub's layout, BM25 beside the model; SentEval's files."""

from __future__ import annotations

import json
from dataclasses import replace

import hub_data
import numpy as np
import pytest

from sentemb.errors import DataError, EvaluationError
from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.opening import open_model
from sentemb.evaluate.reading import RetrievalSet, read_retrieval
from sentemb.evaluate.retrievers import bm25_search, to_run
from sentemb.evaluate.task import EvalSetup
from sentemb.evaluate.tasks.retrieval import Retrieval, score_run
from sentemb.evaluate.tasks.sts import Sts
from sentemb.types import Hits


def words(texts):
    """Bags of words."""
    table = {word: i for i, word in enumerate(hub_data.WORDS)}
    return np.array([[text.split().count(word) for word in table] + [0.01] for text in texts], dtype=np.float32)


@pytest.fixture
def folder(tmp_path):
    hub_data.retrieval(tmp_path)
    return tmp_path / "mteb/nfcorpus"


def test_the_same_from_every_format(folder, tmp_path):
    whole = read_retrieval(folder)
    assert whole.documents["d1"].startswith("about ")
    assert not whole.documents["d0"].startswith(" ")
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        (beir / f"{name}.jsonl").write_bytes((folder / f"{name}.jsonl").read_bytes())
    rows = [json.loads(line) for line in (folder / "qrels/test.jsonl").read_text().splitlines()]
    (beir / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{r['query-id']}\t{r['corpus-id']}\t{r['score']}\n" for r in rows)
    )
    again = read_retrieval(beir)
    assert (again.documents, again.queries, again.qrels) == (whole.documents, whole.queries, whole.qrels)


def test_baselines_and_fusion(folder):
    task = Retrieval(path=str(folder), metric="mrr@10")
    data, model = task.load(EvalSetup()), open_model(words)
    runs = task.runs(data, model)
    assert list(runs) == ["words", "BM25", "RRF(words, BM25)"]
    for run in runs.values():
        assert set(run) == set(data.queries)
        means, _ = score_run(run, data.qrels, "mrr@10")
        assert means["mrr@10"] > 90  # every query shares all but one word with its document
    result = task.run(data, model, EvalSetup(resamples=10))
    assert set(result.baselines) == set(result.baseline_intervals) == {"BM25", "RRF(words, BM25)"}


def test_own_id_is_left_out(folder):
    data = read_retrieval(folder)
    renamed = {("q0" if name == "d0" else name): text for name, text in data.documents.items()}
    same = RetrievalSet(documents=renamed, queries=data.queries, qrels={"q0": {"q0": 1, "d20": 1}})
    plain = Retrieval(path=str(folder), baselines=False)
    with_own = plain.runs(same, open_model(words))["words"]
    without = replace(plain, ignore_identical_ids=True).runs(same, open_model(words))["words"]
    assert "q0" in with_own["q0"]
    assert "q0" not in without["q0"]
    assert len(without["q0"]) == len(renamed) - 1


def test_hits_without_a_document_are_left_out():
    hits = Hits(ids=np.array([[1, -1]]), scores=np.array([[0.5, -np.inf]], dtype=np.float32))
    assert to_run(hits, ["q"], ["a", "b"]) == {"q": {"b": 0.5}}


def test_bm25_of_nothing():
    assert (bm25_search(["the of", "and"], ["river"], 2).ids == -1).all()
    assert bm25_search([], ["river"], 2).ids.shape == (1, 0)
    found = bm25_search(["a river", "a house", "a river by the house"], ["house"], 3)
    assert found.ids[0, 0] == 1
    assert found.ids[0, 2] == -1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("corpus.jsonl", None, "no corpus.jsonl"),
        ("qrels/test.jsonl", None, r"no qrels/test\.jsonl .*; found under qrels/: nothing"),
        (
            "corpus.jsonl",
            '{"_id": "d0", "text": "x"}\n{"_id": "d0", "text": "y"}\n',
            r'corpus.jsonl:2: the id "d0" occurs twice',
        ),
        ("corpus.jsonl", '{"_id": "d0", "text": null}\n', r'corpus.jsonl:1: column "text" holds None'),
        ("corpus.jsonl", '{"text": "x"}\n', r'corpus.jsonl:1: no column "_id"'),
        ("corpus.jsonl", "", "no rows"),
        ("corpus.jsonl", '{"_id": "d0", "text": "x"}\n', "relevant documents are not in the corpus"),
        ("queries.jsonl", '{"_id": "q0", "text": "x"}\n', "11 of 12 judged queries are not among the queries"),
        (
            "qrels/test.jsonl",
            '{"query-id": "q0", "corpus-id": "d0", "score": 0}\n',
            "no query has a relevant document",
        ),
    ],
)
def test_malformed_folders(folder, name, change, message):
    if change is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(change)
    with pytest.raises(DataError, match=message):
        read_retrieval(folder)


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_retrieval(tmp_path / "absent")


# ----------------------------------------------------------------------------------------- SentEval's files
def senteval(root):
    year = root / "downstream/STS/STS12-en-test"
    year.mkdir(parents=True)
    (year / "STS.input.MSRpar.txt").write_text("a b .\tc d .\ne\tf\nunrated\tpair\n")
    (year / "STS.gs.MSRpar.txt").write_text("4.400\n0.8\n\n")
    (year / "STS.input.OnWN.txt").write_text("g\th\n")
    (year / "STS.gs.OnWN.txt").write_text("5\n")
    benchmark = root / "downstream/STS/STSBenchmark"
    benchmark.mkdir()
    (benchmark / "sts-dev.csv").write_text('main-captions\tMSRvid\t2012\t1\t5.000\tA "man" .\tA man .\n')
    sick = root / "downstream/SICK"
    sick.mkdir()
    (sick / "SICK_test_annotated.txt").write_text(
        "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n6\tx y\tz\t3.3\tNEUTRAL\n"
    )


def sts_set(root, name, split="test"):
    (task,) = Sts(protocol="simcse", sets=(name,), split=split).expand(EvalSetup())
    return task.load(EvalSetup(data=DataFolder.find(root)))


def test_senteval_layout(tmp_path):
    senteval(tmp_path)
    year, sick = (sts_set(tmp_path, name) for name in ("STS12", "SICK-R"))
    assert list(year.score) == [4.4, 0.8, 5.0]
    assert year.subset == ["MSRpar", "MSRpar", "OnWN"]
    assert year.sentence2[0] == "c d ."
    assert (list(sick.sentence1), list(sick.score)) == (["x y"], [3.3])
    dev = sts_set(tmp_path, "STSBenchmark", "dev")
    assert dev.sentence1[0] == 'A "man" .'
    with pytest.raises(EvaluationError, match="STS13"):
        sts_set(tmp_path, "STS13")


def test_malformed_senteval(tmp_path):
    senteval(tmp_path)
    gold = tmp_path / "downstream/STS/STS12-en-test/STS.gs.OnWN.txt"
    for content, message in (("x\n", r"""OnWN.txt:1: column "score" holds 'x'"""), ("1\n2\n", "1 pairs, but 2 scores")):
        gold.write_text(content)
        with pytest.raises(DataError, match=message):
            sts_set(tmp_path, "STS12")
