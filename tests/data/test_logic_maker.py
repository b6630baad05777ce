"""Equivalents and contradictions by rules of English."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from sentemb.cli import main
from sentemb.data import Triplets
from sentemb.data.makers import Logic, make_data
from sentemb.data.makers.logic import laws_of
from sentemb.data.makers.negation import denied
from sentemb.errors import DataError

NEGATIONS = {
    "The dog runs": "The dog does not run", "Two dogs ran": "Two dogs did not run", "Dogs run": "Dogs do not run",
    "It is cold": "It is not cold", "She can swim": "She can not swim", "He has a car": "He does not have a car",
    "They had a car": "They did not have a car", "He has been here": "He has not been here",
    "A man is playing a guitar": "A man is not playing a guitar",
    "The band has sold records": "The band has not sold records",
}


@pytest.mark.parametrize(("clause", "negation"), NEGATIONS.items())
def test_a_negation_and_back(clause, negation):
    assert denied(clause) == negation
    assert denied(negation) == clause


@pytest.mark.parametrize("clause", [
    "Every dog runs", "Some dogs run", "The man who runs is old", "Nobody is here", "It isn't cold", "Only he runs",
    "The house built by him burns", "The house of built stones is old",
    "The boy reads plays", "A red house", "", "He is here because it rains", "A man and a woman are running",
])  # fmt: skip
def test_clauses_whose_negation_is_unclear_are_refused(clause):
    assert denied(clause) is None


LAWS = {
    "If it rains, the street is wet.": [
        ("contraposition", "If the street is not wet, then it does not rain.",
         "If it rains, then the street is not wet."),
        ("implication", "Either it does not rain, or the street is wet.", "If it rains, then the street is not wet."),
    ],
    "All dogs are animals.": [("all", "All that are not animals are not dogs.", "Some dogs are not animals.")],
    "A man is playing and the woman is singing.": [
        ("commutativity", "The woman is singing and a man is playing.",
         "A man is playing and the woman is not singing."),
    ],
    "it is raining": [("double negation", "It is not true that it is not raining.", "It is not raining.")],
    "Every dog is an animal.": [], "Is it raining?": [], "All dogs are not cats.": [],
    "A boy and a girl are running.": [], "If it rains, everybody is wet.": [], "All four men are old.": [],
    "He was ill and later was well.": [],
}  # fmt: skip


@pytest.mark.parametrize(("sentence", "expected"), LAWS.items())
def test_each_law_on_fixed_sentences(sentence, expected):
    assert laws_of(sentence) == expected


@pytest.mark.parametrize("sentence", ["If the street is wet, then it rains.", "All dogs are animals.",
                                      "The woman is singing and a man is playing."])
def test_a_law_applied_twice_gives_the_sentence_back(sentence):
    (_, once, _), *_ = laws_of(sentence)
    (_, twice, _), *_ = laws_of(once)
    assert twice == sentence


def test_rows_are_triplets_and_what_no_law_fits_is_counted(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("It is raining.\nA red house.\nIf it rains, the street is wet.\n")
    made = make_data(Logic(path=str(path)), tmp_path / "logic.jsonl")
    assert (made.rows, made.left_out) == (3, {"sentences that no law fits": 1})
    table = Triplets(path=str(tmp_path / "logic.jsonl")).load()
    assert table.columns["negative_1"][0] == "It is not raining."
    path.write_text("A red house.\n")
    with pytest.raises(DataError, match="no row can be made of it: 1 sentences that no law fits"):
        make_data(Logic(path=str(path)), tmp_path / "none.jsonl")
    assert list(Logic(path=str(path)).rows(np.random.default_rng(0), Counter())) == []


ANTONYMS = {"wet": "dry", "asleep": "awake"}


@pytest.mark.parametrize(("sentence", "opposite"), [
    ("The street is wet.", "The street is dry."), ("Two men were asleep", "Two men were awake."),
    ("The street is very wet.", None), ("The street is not wet.", None), ("The street is red.", None),
    ("The wet street is long.", None), ("It gets wet.", None), ("Every street is wet.", None),
])  # fmt: skip
def test_the_law_of_antonyms(sentence, opposite):
    rewritings = laws_of(sentence, ANTONYMS)
    assert [row for row in rewritings if row[0] != "antonym"] == laws_of(sentence)
    assert [contradiction for law, _, contradiction in rewritings if law == "antonym"] == [opposite] * bool(opposite)
    equivalents = {equivalent for _, equivalent, _ in rewritings}
    assert len(equivalents) <= 1


def test_antonyms_come_from_wordnet_where_its_folder_is_given(wordnet, tmp_path, capsys):
    path, made = tmp_path / "lines.txt", tmp_path / "logic.jsonl"
    path.write_text("The street is wet.\nThe wine is dry.\n")
    assert make_data(Logic(path=str(path)), made).rows == 2
    command = ["data", "make", "logic", str(path), "-o", str(made), "--set", f"wordnet={wordnet}"]
    with pytest.raises(SystemExit) as ended:
        main(["--quiet", *command])
    assert not ended.value.code
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    assert [(row["law"], row["negative_1"]) for row in rows] == [
        ("double negation", "The street is not wet."), ("antonym", "The street is dry."),
        ("double negation", "The wine is not dry."),
    ]  # fmt: skip
    assert rows[1]["positive"] == "It is not true that the street is not wet."
    with pytest.raises(DataError, match=r"no data\.noun; give the folder"):
        make_data(Logic(path=str(path), wordnet=str(tmp_path)), made)
