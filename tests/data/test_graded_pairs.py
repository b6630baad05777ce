"""Pairs that a language model scored: what is left out, smoothed and added."""

from __future__ import annotations

import json
from collections import Counter
from itertools import permutations

import pytest

from sentemb.cli import main
from sentemb.data.graded_pairs import GradedPairs, grade_pairs, read_scored_pairs
from sentemb.errors import DataError

SCORED = [
    ("a", "a1", 0.5), ("a", "a2", 0.5), ("a", "a3", 0.5), ("a", "a4", 1.0), ("a", "a1", 0.5), ("b", "b", 1.0),
    ("b", "b [MASK]", 0.3), ("b", "b1", 0.0), ("c <mask>", "c1", 0.5), ("c", "c1", 0.25),
]


def test_ten_pairs_by_hand():
    graded = grade_pairs(SCORED)
    drawn = [pair for pair in graded.pairs if pair[2] == 0]
    scored = [(anchor, positive, round(score, 9)) for anchor, positive, score in graded.pairs if score > 0]
    assert scored == [("a", "a1", 0.5), ("a", "a2", 0.5), ("a", "a4", 0.9), ("b", "b1", 0.1), ("c", "c1", 0.3)]
    assert sorted((anchor, other) for anchor, other, _ in drawn) == sorted(permutations("abc", 2))
    assert graded == GradedPairs(pairs=graded.pairs, identical=1, masked=2, repeated=1, crowded=1)


def test_random_partners_are_two_others_drawn_by_the_seed():
    scored = [(f"anchor {i}", f"other {i}", 0.5) for i in range(300)]
    drawn = [(anchor, other) for anchor, other, score in grade_pairs(scored).pairs if score == 0]
    assert len(set(drawn)) == 600
    assert all(anchor != other for anchor, other in drawn)
    assert set(Counter(anchor for anchor, _ in drawn).values()) == {2}
    assert len({other for _, other in drawn}) > 200
    assert grade_pairs(scored) == grade_pairs(scored) != grade_pairs(scored, seed=1)


def test_few_anchors_have_few_partners():
    assert grade_pairs([]).pairs == []
    assert grade_pairs([("a", "b", 1.0)]).pairs == [("a", "b", 0.9)]


def test_the_command_writes_what_a_recipe_reads(tmp_path, capsys):
    path, output = tmp_path / "scored.jsonl", tmp_path / "pairs.jsonl"
    rows = [{"anchor": a, "positive": b, "score": y} for a, b, y in SCORED]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit) as ended:
        main(["data", "grade", str(path), "-o", str(output)])
    assert not ended.value.code
    assert "11 pairs; left out: 1 of equal texts, 2 with a mask, 1 repeated, 1 of an" in capsys.readouterr().out
    expected = [(a, b, pytest.approx(y)) for a, b, y in grade_pairs(SCORED).pairs]
    assert read_scored_pairs(str(output)) == expected


@pytest.mark.parametrize(("row", "words"), [
    ({"anchor": "a", "positive": "b"}, "no column score"),
    ({"anchor": "a", "positive": "b", "score": 5}, "row 1 has the score 5; scores are from 0 to 1"),
])
def test_scores_must_be_there_and_fit(tmp_path, row, words):
    path = tmp_path / "scored.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=words):
        read_scored_pairs(str(path))
