"""Ranking metrics against pytrec_eval and mteb, on random and degenerate inputs; TREC files; exact search; fusion."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from sentemb.errors import DataError, EvaluationError
from sentemb.evaluate.metrics import judged_queries, ranking_scores
from sentemb.evaluate.reading import check_ids, read_qrels, read_run, write_run
from sentemb.evaluate.retrievers import fuse

CUTS = (1, 3, 10)

documents = st.sampled_from([f"d{i}" for i in range(12)])
# few distinct scores, so that ties are common
runs = st.dictionaries(documents, st.sampled_from([0.0, 0.5, 0.5000001, 1.0, -2.0]), max_size=12)
judgements = st.dictionaries(documents, st.integers(0, 3), max_size=6)


@given(st.lists(st.tuples(judgements, runs), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_as_pytrec_eval_with_ties_and_gaps(rows):
    qrels = {f"q{i}": judged for i, (judged, _) in enumerate(rows)}
    run = {f"q{i}": hits for i, (_, hits) in enumerate(rows)}
    queries = judged_queries(qrels)
    if not queries:
        with pytest.raises(EvaluationError, match="no query with a relevant document"):
            ranking_scores(qrels, run, CUTS)
        return
    ours = ranking_scores(qrels, run, CUTS)
    measures = {f"{m}.1,3,10" for m in ("ndcg_cut", "map_cut", "recall", "P", "success")}
    asked = {q: run[q] for q in queries if run[q]}
    theirs = pytrec_eval.RelevanceEvaluator({q: qrels[q] for q in queries}, measures).evaluate(asked)
    names = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
    for name, trec in names.items():
        for k in CUTS:
            expected = [theirs[q][f"{trec}_{k}"] if q in theirs else 0.0 for q in queries]
            np.testing.assert_allclose(ours[f"{name}@{k}"], expected, atol=1e-9)
    for k in CUTS:
        np.testing.assert_allclose(ours[f"mrr@{k}"], [_reciprocal(qrels[q], run[q], k) for q in queries], atol=1e-12)


def _reciprocal(judged, hits, k):
    ranked = sorted(hits, key=lambda d: (hits[d], d), reverse=True)
    return next((1 / rank for rank, d in enumerate(ranked[:k], 1) if judged.get(d, 0) > 0), 0.0)


def test_as_mteb():
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    generator = np.random.default_rng(0)
    names = [f"d{i}" for i in range(200)]
    qrels = {
        f"q{i}": {str(d): int(generator.integers(0, 3)) for d in generator.choice(names, 8, replace=False)}
        for i in range(30)
    }
    qrels = {q: qrels[q] for q in judged_queries(qrels)}
    # one decimal: many ties
    run = {
        q: {str(d): round(float(generator.normal()), 1) for d in generator.choice(names, 150, replace=False)}
        for q in qrels
    }
    theirs = calculate_retrieval_scores(run, qrels, list(CUTS), False)
    ours = ranking_scores(qrels, run, CUTS)
    for k in CUTS:
        for name, table, label in (
            ("ndcg", theirs.ndcg, "NDCG"),
            ("map", theirs.map, "MAP"),
            ("recall", theirs.recall, "Recall"),
            ("precision", theirs.precision, "P"),
            ("mrr", theirs.mrr, "MRR"),
            ("hit_rate", theirs.hit_rate, "HitRate"),
        ):
            assert ours[f"{name}@{k}"].mean() == pytest.approx(table[f"{label}@{k}"], abs=1e-5), (
                name,
                k,
            )  # mteb rounds


@pytest.mark.parametrize(
    ("qrels", "run"),
    [
        ({"q": {"a": 1}}, {"q": {"a": 0.0}}),  # one query, one document
        ({"q": {"a": 2, "b": 1, "c": 0}}, {"q": dict.fromkeys("abcdefghijkl", 0.5)}),  # all scores tie
        ({"q": {"a": 1}, "p": {"b": 3}}, {"q": {"a": 1.0}, "p": {"x": 2.0, "y": 1.0}}),  # nothing relevant found
        ({"q": {"a": 1}}, {"q": {f"d{i}": -float(i) for i in range(11)} | {"a": -99.0}}),  # relevant, below every cut
        ({"q": {f"d{i}": 1 for i in range(20)}}, {"q": {f"d{i}": float(i % 2) for i in range(20)}}),  # all relevant
    ],
)
def test_as_mteb_query_by_query(qrels, run):
    """Its means are rounded, the values behind them are not."""
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, mrr

    theirs = calculate_retrieval_scores(run, qrels, list(CUTS)).all_scores
    reciprocal = mrr(qrels, run, list(CUTS))
    ours = ranking_scores(qrels, run, CUTS)
    names = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
    for k in CUTS:
        for name, trec in names.items():
            expected = [theirs[query][f"{trec}_{k}"] for query in qrels]
            np.testing.assert_allclose(ours[f"{name}@{k}"], expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(ours[f"mrr@{k}"], reciprocal[f"MRR@{k}"], rtol=0, atol=1e-9)


def test_a_query_without_hits_scores_0():
    """pytrec_eval leaves it out; a mean over the others would reward silence."""
    found = ranking_scores({"q": {"a": 1}, "p": {"b": 1}}, {"q": {"a": 1.0}, "p": {}}, (10,))
    assert all(values.tolist()[1] == 0.0 for values in found.values())


def test_graded_gain_by_hand():
    # gains 3, 0, 1 at ranks 1, 2, 3; ideal 3, 1
    score = ranking_scores({"q": {"a": 3, "c": 1}}, {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}, (3,))["ndcg@3"][0]
    assert score == pytest.approx((3 + 1 / 2) / (3 + 1 / np.log2(3)), abs=1e-9)


def test_a_negative_judgement_is_not_relevant():
    score = ranking_scores({"q": {"a": 1, "spam": -2}}, {"q": {"spam": 2.0, "a": 1.0}}, (10,))
    assert score["ndcg@10"][0] == pytest.approx(1 / np.log2(3))
    assert score["mrr@10"][0] == 0.5


def test_empty_qrels_and_unknown_ids():
    with pytest.raises(EvaluationError, match="no query"):
        ranking_scores({}, {}, (10,))
    with pytest.raises(EvaluationError, match="no query"):
        ranking_scores({"q": {"d": 0}}, {"q": {"d": 1.0}}, (10,))
    with pytest.raises(
        DataError, match=r'1 of 2 judged queries are not among the queries \(first: "x"\); 1 relevant .*"dx"'
    ):
        check_ids({"q": {"d": 1, "dx": 1}, "x": {"d": 1}}, ["q"], ["d"], source="qrels/test.tsv")
    check_ids(
        {"q": {"d": 1, "unjudged": 0}}, ["q"], ["d"], source="f"
    )  # a document that is not relevant may be absent


def test_fusion_by_hand():
    fused = fuse([{"q": {"a": 9.0, "b": 1.0}}, {"q": {"b": 0.2, "c": 0.1}}], 10)
    assert fused["q"] == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 62})
    assert list(fuse([{"q": {"a": 9.0, "b": 1.0}}], 1)["q"]) == ["a"]


# --------------------------------------------------------------------------------------------- TREC files
def test_run_round_trip(tmp_path):
    run = {"q1": {"d1": 0.12345678901234, "d2": -1.0}, "q2": {"d3": 1e-12}}
    write_run(tmp_path / "run.trec", run)
    assert read_run(tmp_path / "run.trec") == run
    assert (tmp_path / "run.trec").read_text().splitlines()[0] == "q1 Q0 d1 1 0.12345678901234 sentemb"
    with pytest.raises(DataError, match="white space"):
        write_run(tmp_path / "bad.trec", {"q 1": {"d": 1.0}})
    assert not (tmp_path / "bad.trec").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\n"),
        (
            "test.jsonl",
            '{"query-id": "q1", "corpus-id": "d1", "score": 2}\n{"query-id": "q1", "corpus-id": "d2", "score": 0}\n'
            '{"query-id": "q2", "corpus-id": "d1", "score": 1.0}\n',
        ),
        ("test.qrels", "q1 0 d1 2\nq1 0 d2 0\n\nq2 0 d1 1\n"),
        ("test.tsv", "q1\t0\td1\t2\nq1\t0\td2\t0\nq2\t0\td1\t1\n"),
    ],
)
def test_judgements_in_every_form(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_qrels(tmp_path / name) == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.qrels", "q1 0 d1\n", r"q.qrels:1: 3 fields; needed are 4"),
        ("q.qrels", "q1 0 d1 much\n", r"""q.qrels:1: column "score" holds 'much'; a finite number"""),
        ("q.qrels", "q1 0 d1 inf\n", r"""q.qrels:1: column "score" holds 'inf'; a finite number"""),
        ("q.qrels", "q1 0 d1 0.5\n", r"q.qrels:1: the relevance '0.5' is no whole number"),
        ("q.qrels", "", "no judgements"),
        ("q.jsonl", '{"query-id": "q1", "score": 1}\n', r'q.jsonl:1: no column "corpus-id"'),
    ],
)
def test_malformed_judgements(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_qrels(tmp_path / name)


def test_malformed_runs(tmp_path):
    path = tmp_path / "r.trec"
    number = "r.trec:1: column \"score\" holds 'x'; a finite number"
    for content, message in (("q Q0 d 1 x t\n", number), ("q Q0 d\n", "needed are 6"), ("", "empty")):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_run(path)
    with pytest.raises(DataError, match="no such file"):
        read_run(tmp_path / "absent")
