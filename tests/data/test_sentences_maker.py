"""Sentences of documents in their order."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from sentemb.data.makers import Sentences, make_data
from sentemb.data.makers.sentences import joined, sentences_of

TEXT = 'The dog ran 3.5 miles.  It was\nlate. "Why?" He left (at last.) Nobody knows why…'


def test_by_hand():
    assert sentences_of(TEXT) == [
        "The dog ran 3.5 miles.", "It was late.", '"Why?"', "He left (at last.)", "Nobody knows why…"]
    assert sentences_of(" ") == []
    joint = joined(["Oh.", "It is so late.", "Yes.", "He left it there."], 3)
    assert joint == ["Oh. It is so late. Yes.", "He left it there."]


@pytest.mark.parametrize("words", range(1, 20))
def test_no_word_is_lost(words):
    assert " ".join(joined(sentences_of(TEXT), words)) == " ".join(TEXT.split())
    assert all(len(sentence.split()) >= min(words, 16) for sentence in joined(sentences_of(TEXT), words)[:-1])


def test_rows_come_in_order_with_their_document(tmp_path):
    path = tmp_path / "documents.jsonl"
    documents = ["One two three. Four five six.", "Alone here.", TEXT]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    left_out: Counter[str] = Counter()
    rows = list(Sentences(path=str(path)).rows(np.random.default_rng(0), left_out))
    assert [row["anchor"] for row in rows] == [
        "One two three.", "Four five six.", "The dog ran 3.5 miles.", 'It was late. "Why?"', "He left (at last.)",
        "Nobody knows why…",
    ]
    assert [row["label"] for row in rows] == [0, 0, 2, 2, 2, 2]
    assert left_out == {"documents of a single sentence": 1}
    (tmp_path / "lines.txt").write_text("One two three. Four five six.\n")
    assert make_data(Sentences(path=str(tmp_path / "lines.txt")), tmp_path / "out.jsonl").rows == 2
