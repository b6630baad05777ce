"""Chunks of documents against their documents."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from sentemb.data.makers import Chunks, make_data
from sentemb.data.makers.chunks import chunks_of
from sentemb.errors import DataError

TEXT = "One two three four. Five six seven! Eight nine ten eleven? Twelve thirteen (fourteen.) Fifteen."


def test_chunks_are_whole_sentences_by_hand():
    assert chunks_of(TEXT, 4) == [
        "One two three four.", "Five six seven! Eight nine ten eleven?", "Twelve thirteen (fourteen.) Fifteen."]
    assert chunks_of(TEXT, 100) == [TEXT]
    assert chunks_of("No 3.5 mg of it was given. e.g. this.", 1) == ["No 3.5 mg of it was given. e.g. this."]


@pytest.mark.parametrize("words", range(1, 17))
def test_no_word_is_lost(words):
    assert " ".join(chunks_of(TEXT, words)) == TEXT


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.jsonl"
    rows = [{"title": "Numbers", "text": TEXT}, {"text": "Short."}, {"text": TEXT.lower().title()}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("removed", [0.0, 1.0])
def test_a_row_is_a_chunk_with_its_document(documents, removed):
    left_out: Counter[str] = Counter()
    rows = list(Chunks(path=str(documents), words=4, removed=removed).rows(np.random.default_rng(0), left_out))
    assert left_out == {"documents of a single chunk": 1}
    assert {row["label"] for row in rows} == {0, 2}
    for row in rows[:3]:
        chunks = chunks_of(TEXT, 4)
        if removed:
            chunks.remove(row["anchor"])
        assert row["positive"] == f"Numbers {' '.join(chunks)}"


def test_a_document_without_text_is_named(tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text('{"text": "a. B. C."}\n{"title": "only"}\n')
    with pytest.raises(DataError, match=r'documents.jsonl:2: nothing in column "text"'):
        make_data(Chunks(path=str(path), words=1), tmp_path / "out.jsonl")
