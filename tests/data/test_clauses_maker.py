"""Sentences and their halves, split where a clause ends."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sentemb.data.makers import Clauses, make_data
from sentemb.data.makers.clauses import halves_of
from sentemb.errors import DataError, PartError


@pytest.mark.parametrize(
    ("sentence", "first"),
    [
        ("He ran back home, because it began to rain.", "He ran back home,"),
        ("He ran home, because it began to rain.", "He ran home, because"),  # 12 letters against 25
        ("She sings and he plays the old guitar", "She sings"),  # 9 letters against 27: no balance, the middle
        ("One, two three four five six; seven eight nine", "One, two three four five six;"),
        ("a b", "a"),
        ("The old man of the sea slept", "The old man of"),
    ],
)
def test_by_hand(sentence, first):
    halves = halves_of(sentence, 0.5)
    assert " ".join(halves) == sentence
    if sentence.startswith("She"):
        assert halves[0] == "She sings and he"
        assert halves_of(sentence, 0.9)[0] == first
    else:
        assert halves[0] == first


def test_the_boundary_nearest_to_the_middle_is_taken():
    sentence = "Rain fell, and the river rose, and the bridge that we had built, fell"
    boundaries = ["Rain fell,", "Rain fell, and the river rose,", "Rain fell, and the river rose, and the bridge"]
    middle = len(sentence) / 2
    expected = min(boundaries, key=lambda half: abs(len(half) + 1 - middle))
    assert halves_of(sentence, 1.0)[0] == expected


def test_rows_and_what_is_left_out(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("He  ran, she slept\nAlone\n")
    left_out: Counter[str] = Counter()
    rows = list(Clauses(path=str(path)).rows(np.random.default_rng(0), left_out))
    assert rows == [{"anchor": "He ran, she slept", "positive": "He ran,", "positive_2": "she slept"}]
    assert left_out == {"sentences of one word": 1}
    path.write_text("Alone\n")
    with pytest.raises(DataError, match="no row can be made of it: 1 sentences of one word"):
        make_data(Clauses(path=str(path)), tmp_path / "out.jsonl")
    with pytest.raises((PartError, ValueError), match="balance"):
        Clauses(path="x", balance=1.5)
