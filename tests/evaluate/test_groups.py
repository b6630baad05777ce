"""Scores by group: word overlap, columns, the worst group and the gap."""

from __future__ import annotations

import math

import hub_data
import numpy as np
import pytest
from scipy.stats import spearmanr

from sentemb.cli import main
from sentemb.errors import EvaluationError, PartError
from sentemb.evaluate import Classification, Sts, evaluate_model
from sentemb.evaluate.groups import group_line, overlap, quarters, scores_by_group
from sentemb.evaluate.metrics import pair_similarities


def lengths(texts):
    """Length of the text and of its first word: a deterministic embedder."""
    return np.array([[len(text), len(text.split()[0]), sum(map(ord, text)) % 17 + 1] for text in texts], np.float32)


def test_overlap_and_quarters_by_hand():
    assert overlap(["A red house.", "dog", "?"], ["the red house", "cat", "!"]).tolist() == [0.5, 0.0, 0.0]
    names = quarters(np.array([0.0, 0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0]))
    assert [name.split()[0] for name in names] == ["1st", "1st", "1st", "2nd", "3rd", "3rd", "4th", "4th"]


def test_worst_group_and_gap_leave_out_what_has_no_score():
    scores = scores_by_group(["a", "b", "c", "a"], "lang", lambda rows: {2: 70.0, 1: 50.0}[int(rows.sum())])
    assert scores == {"by lang: a": 70, "by lang: b": 50, "by lang: c": 50, "by lang: worst group": 50,
                      "by lang: gap between groups": 20}
    none = scores_by_group(["a", "b"], "lang", lambda rows: math.nan if rows[0] else 40.0)
    assert none["by lang: worst group"] == 40
    assert none["by lang: gap between groups"] == 0
    assert group_line("T", {"accuracy": 1, **none}) == (
        "T by lang: a –, b 40.00, worst group 40.00, gap between groups 0.00")
    assert group_line("T", {"accuracy": 1}) == ""


@pytest.fixture
def pairs(tmp_path):
    rows = [{**row, "lang": "en" if i % 3 else "de", "score": row["score"] + i / 100}
            for i, row in enumerate(hub_data.pairs())]
    hub_data.jsonl(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl", rows


@pytest.mark.parametrize("by", ["overlap", "lang"])
def test_sts_by_group_equals_spearman_of_the_group_alone(pairs, by):
    path, rows = pairs
    (result,) = evaluate_model(lengths, Sts(path=str(path), by=by), resamples=0).tasks
    groups = [row["lang"] for row in rows] if by == "lang" else quarters(
        overlap([row["sentence1"] for row in rows], [row["sentence2"] for row in rows]))
    sides = (lengths([row[side] for row in rows]) for side in ("sentence1", "sentence2"))
    cosine = pair_similarities(*sides)["cosine"]
    for group in set(groups):
        of = np.array(groups) == group
        gold = np.array([row["score"] for row in rows])[of]
        is_flat = np.ptp(cosine[of]) == 0 or np.ptp(gold) == 0
        expected = math.nan if is_flat else 100 * spearmanr(cosine[of], gold).statistic
        assert result.metrics[f"by {by}: {group}"] == pytest.approx(expected, abs=1e-3, nan_ok=True)
    (plain,) = evaluate_model(lengths, Sts(path=str(path)), resamples=0).tasks
    assert plain.main == result.main
    assert plain.key == result.key


def test_classification_by_group(tmp_path):
    rows = [{**row, "site": "x" if i % 4 else "y"} for i, row in enumerate(hub_data.labelled(60, 3))]
    hub_data.jsonl(tmp_path / "labelled.jsonl", rows)
    (result,) = evaluate_model(lengths, Classification(path=str(tmp_path / "labelled.jsonl"), method="knn", by="site"),
                               resamples=0).tasks
    shares = [np.mean([row["site"] == site for row in rows]) for site in "xy"]
    of_groups = [result.metrics[f"by site: {site}"] for site in "xy"]
    assert np.dot(shares, of_groups) == pytest.approx(result.main)
    assert result.metrics["by site: gap between groups"] == pytest.approx(max(of_groups) - min(of_groups))
    with pytest.raises(PartError, match="need method"):
        Classification(path="x", method="fewshot", by="site")


def test_a_column_that_is_not_there_is_named(pairs):
    results = evaluate_model(lengths, Sts(path=str(pairs[0]), by="language"), resamples=0)
    assert 'pairs.jsonl:1: no column "language"' in results.failures[0].error


def test_a_column_of_ids_is_no_column_of_groups():
    with pytest.raises(EvaluationError, match='by = "id": 101 different values; at most 100'):
        scores_by_group([str(i) for i in range(101)], "id", lambda rows: 0.0)


def test_the_verb_shows_groups(pairs, tmp_path, capsys, monkeypatch):
    (tmp_path / "own_lengths.py").write_text(
        "import numpy as np\n\n"
        "def encode(texts):\n    return np.array([[len(t), sum(map(ord, t)) % 17 + 1] for t in texts], np.float32)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["eval", "own_lengths:encode", "--sts", str(pairs[0]), "--by", "overlap", "--resamples", "0"])
    shown = capsys.readouterr()
    assert not caught.value.code, shown.err
    assert "pairs by overlap: 1st quarter (least)" in shown.out
    with pytest.raises(SystemExit):
        main(["eval", "own_lengths:encode", "--classification", str(pairs[0]), "--by", "overlap"])
    assert "--by overlap: is for STS" in capsys.readouterr().err

