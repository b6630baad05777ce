"""Pseudo-relevance feedback, by words and by vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy import ToyEncoder

from sentemb.errors import PartError, SearchError
from sentemb.search import Hit, SearchIndex
from sentemb.search.query.expansion import Feedback
from sentemb.search.query.words import Bm25
from sentemb.search.store.words import words_of_texts

TEXTS = ["heart attack aspirin", "heart attack aspirin dose", "aspirin dose children", "garden house", "house attack",
         "children garden music"]


@pytest.fixture
def index(tmp_path: Path) -> SearchIndex:
    return SearchIndex.build(tmp_path / "ix", TEXTS, encoder=ToyEncoder())


def test_words_by_a_loop() -> None:
    bm25 = Bm25([words_of_texts(TEXTS)])
    documents = ["heart attack aspirin", "aspirin dose", "attack"]
    first = [Hit(id=0, score=1.0, text=text, metadata={}) for text in documents]
    worth = {}
    for word in {word for text in documents for word in text.split()} - {"heart"}:
        worth[word] = bm25.idf(word) * sum(text.split().count(word) for text in documents)
    expected = sorted(worth, key=lambda word: (-worth[word], word))[:2]
    whole = sum(worth[word] for word in expected)
    widened = Feedback(terms=2, weight=0.5).words(bm25, "heart heart", first)
    assert widened == {"heart": 2, **{word: pytest.approx(0.5 * 2 * worth[word] / whole) for word in expected}}
    assert Feedback(terms=0).words(bm25, "heart heart", first) == {"heart": 2}
    assert set(Feedback(terms=9).words(bm25, "heart", first)) == {"heart", "attack", "aspirin", "dose"}


def test_a_document_without_a_query_word_is_found_through_the_first_results(index: SearchIndex) -> None:
    plain = [hit.id for hit in index.by_words(["heart"], 6)[0]]
    wide = [hit.id for hit in index.by_words(["heart"], 6, expand=Feedback(documents=2, terms=2))[0]]
    assert plain == [0, 1]
    assert wide[:2] == [0, 1] or wide[:2] == [1, 0]
    assert 2 in wide  # aspirin, dose


@pytest.mark.parametrize("expand", [Feedback(documents=0), Feedback(weight=0.0)])
def test_nothing_to_add_is_the_plain_search_exactly(index: SearchIndex, expand: Feedback) -> None:
    queries = ["heart", "house music"]
    for way in (index.search, index.by_words, index.hybrid):
        assert way(queries, 4, expand=expand) == way(queries, 4)


def test_vectors_move_to_the_mean_of_the_first_results(index: SearchIndex) -> None:
    expand = Feedback(documents=2, weight=0.7)
    query = index.vectors_of_texts(["heart"])
    first = index.search_positions(query, 2)
    mean = index.generation.vectors_at(first.ids[0]).mean(axis=0)
    moved = (query[0] + 0.7 * mean) / 1.7
    np.testing.assert_allclose(expand.vectors(index.generation.vectors_at, query, first)[0], moved, rtol=1e-6)
    by_hand = [hit.id for hit in index.search(moved[None].astype(np.float32), 6)[0]]
    assert [hit.id for hit in index.search(["heart"], 6, expand=expand)[0]] == by_hand


def test_a_filter_holds_for_the_first_results_too(index: SearchIndex) -> None:
    hits = index.by_words(["heart"], 6, where="id in (0, 3)", expand=Feedback(documents=3, terms=5))[0]
    assert [hit.id for hit in hits] == [0]


def test_a_query_that_finds_nothing_stays_as_it_is(index: SearchIndex) -> None:
    assert index.by_words(["unheard"], 3, expand=Feedback()) == [[]]


def test_spellings() -> None:
    assert Feedback.of("prf:5,20") == Feedback(documents=5, terms=20)
    assert Feedback.of("prf:5") == Feedback(documents=5)
    with pytest.raises(SearchError, match="write prf:DOCUMENTS,TERMS"):
        Feedback.of("rm3")
    with pytest.raises(PartError, match="weight"):
        Feedback(weight=-1.0)
