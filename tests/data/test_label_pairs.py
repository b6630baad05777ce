"""Pairs of labelled texts, and what every maker has in common."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations_with_replacement

import numpy as np
import pytest

from sentemb.cli import main
from sentemb.data import TextPairs
from sentemb.data.makers import LabelPairs, make_data
from sentemb.errors import DataError, PartError

SIZES = {"a": 3, "b": 2, "c": 1}
LABELS = [label for label, count in SIZES.items() for _ in range(count)]
ALIKE = sum(size * (size + 1) // 2 for size in SIZES.values())  # 10, each text with itself among them
UNLIKE = 6 * 7 // 2 - ALIKE  # 11


@pytest.fixture
def labelled(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}", "label": label}) + "\n" for i, label in enumerate(LABELS)))
    return str(path)


def pairs_of(path: str, seed: int = 42, **settings) -> list[tuple[str, str, float]]:
    rows = LabelPairs(path=path, **settings).rows(np.random.default_rng(seed), Counter())
    return [(row["anchor"], row["positive"], row["score"]) for row in rows]


def test_unique_is_every_unordered_pair_once_by_a_loop(labelled):
    expected = Counter()
    for i, j in combinations_with_replacement(range(6), 2):
        expected[f"text {i}", f"text {j}", float(LABELS[i] == LABELS[j])] += 1
    assert Counter(pairs_of(labelled, sampling="unique")) == expected


@pytest.mark.parametrize(("settings", "alike", "unlike"), [
    ({}, UNLIKE, UNLIKE), ({"sampling": "undersampling"}, ALIKE, ALIKE), ({"sampling": "unique"}, ALIKE, UNLIKE),
    ({"iterations": 4}, 24, 24), ({"iterations": 1, "sampling": "unique"}, 6, 6),
])  # fmt: skip
def test_counts_of_either_kind(labelled, settings, alike, unlike):
    pairs = pairs_of(labelled, **settings)
    assert Counter(score for _, _, score in pairs) == {1.0: alike, 0.0: unlike}
    both = 2 * min(alike, unlike)
    assert [score for _, _, score in pairs[:both]] == [1.0, 0.0] * (both // 2)  # in turn
    assert len({pair for pair in pairs if pair[2] == 1}) == min(alike, ALIKE)  # repeated only where all were used


def test_a_text_with_several_labels_is_like_all_that_share_one(tmp_path):
    path = tmp_path / "many.jsonl"
    rows = [{"text": "x", "label": ["a", "b"]}, {"text": "y", "label": ["b"]}, {"text": "z", "label": ["c"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {frozenset(pair[:2]): pair[2] for pair in pairs_of(str(path), sampling="unique")}
    assert scores == {frozenset("x"): 1, frozenset("y"): 1, frozenset("z"): 1, frozenset("xy"): 1, frozenset("xz"): 0,
                      frozenset("yz"): 0}


def test_the_seed_decides_the_order(labelled):
    assert pairs_of(labelled) == pairs_of(labelled) != pairs_of(labelled, seed=1)


@pytest.mark.parametrize(("rows", "message"), [
    ([{"text": "x", "label": "a"}, {"text": "y", "label": "a"}], "all texts share a label"),
    ([{"text": "x", "label": "a"}, {"text": "y"}], r'rows.jsonl:2: nothing in column "label" or "labels"'),
    ([{"text": "x", "label": "a"}, {"text": 3, "label": "b"}], r"rows.jsonl:2: .* a text is needed"),
    ([{"text": "x", "label": "a"}], "at least two"),
    ([{"text": "x", "label": "a"}, {"text": "y", "label": []}], r"rows.jsonl:2: .* empty list"),
])  # fmt: skip
def test_bad_input_names_file_and_row_and_writes_nothing(tmp_path, rows, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        make_data(LabelPairs(path=str(path)), tmp_path / "out.jsonl")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.jsonl"]


def test_more_pairs_than_memory_should_hold_are_refused(labelled, monkeypatch):
    monkeypatch.setattr("sentemb.data.makers.label_pairs.MOST_PAIRS", 20)
    with pytest.raises(DataError, match="6 texts make 21 pairs, more than 20; give a few texts of every label"):
        pairs_of(labelled)


def test_the_verb_writes_what_a_recipe_reads(labelled, tmp_path, capsys):
    output = tmp_path / "pairs.jsonl"
    with pytest.raises(SystemExit) as caught:
        main(["data", "make", "label-pairs", labelled, "-o", str(output), "--set", "sampling=undersampling", "--json"])
    assert not caught.value.code
    assert json.loads(capsys.readouterr().out) == {
        "output": str(output), "rows": 2 * ALIKE, "left_out": {"pairs of unlike texts": 1}}
    table = TextPairs(path=str(output)).load()
    assert len(table) == 2 * ALIKE
    assert table.score is not None
    assert table.score.mean() == 0.5


@pytest.mark.parametrize(("arguments", "message"), [
    (["label-pair"], "did you mean label_pairs"), (["label-pairs", "--set", "sampling=all"], "oversampling"),
    (["label-pairs", "--set", "iterations=0"], "at least|greater than"),
])
def test_the_verb_says_what_is_allowed(labelled, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main(["data", "make", arguments[0], labelled, "-o", str(tmp_path / "out.jsonl"), *arguments[1:]])
    assert caught.value.code == 2
    assert message.split("|")[0] in (err := capsys.readouterr().err) or message.split("|")[-1] in err
    assert err.count("\n") == 1


def test_output_must_be_json_lines(labelled, tmp_path):
    with pytest.raises(DataError, match=r"ends in \.jsonl"):
        make_data(LabelPairs(path=labelled), tmp_path / "out.csv")
    with pytest.raises(PartError):
        LabelPairs(path=labelled, iterations=0)
