"""Word lists and BM25 against the formula, one document and one word at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from toy import ToyEncoder

from sentemb.errors import SearchError
from sentemb.search import Document, SearchIndex
from sentemb.search.query.words import K1, B, Bm25
from sentemb.search.store import words as store_words
from sentemb.search.store.words import WordRule, rule_of, words_of_texts


def drawn(rows: int, seed: int) -> list[str | None]:
    generator = np.random.default_rng(seed)
    words = np.array([f"wort{i}" for i in range(40)] + ["über", "naïve"])
    frequent = [(generator.random(generator.integers(1, 20)) ** 2 * 42).astype(int) for _ in range(rows)]
    return [None if generator.random() < 0.1 else " ".join(words[numbers]) for numbers in frequent]


def reference(texts: Sequence[str | None], query: str) -> dict[int, float]:
    rule = WordRule()
    documents = [rule.words(text or "") for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores: dict[int, float] = {}
    for word in rule.words(query):
        holding = sum(word in document for document in documents)
        idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
        for row, document in enumerate(documents):
            times = document.count(word)
            if times:
                scores[row] = scores.get(row, 0) + idf * times / (times + K1 * (1 - B + B * len(document) / mean))
    return scores


@pytest.mark.parametrize("part_rows", [100_000, 7])
def test_scores_over_segments_are_those_of_one_collection(part_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_words, "PART_ROWS", part_rows)
    segments = [drawn(rows, seed) for seed, rows in enumerate((30, 1, 55))]
    texts = [text for segment in segments for text in segment]
    bm25 = Bm25([words_of_texts(segment) for segment in segments])
    queries = ["wort1 wort3 wort3", "über wort9", "unknown", "the", ""]
    for query, ids, scores in zip(queries, *vars(bm25.top(queries, 1000)).values(), strict=True):
        expected = reference(texts, query)
        scored = {int(i): float(s) for i, s in zip(ids, scores, strict=True) if i >= 0}
        assert scored == pytest.approx(expected, rel=1e-5)
        assert (np.diff(scores[ids >= 0]) <= 0).all()
    best = bm25.top(queries, 5)
    expected = reference(texts, queries[0])
    np.testing.assert_allclose(best.scores[0], sorted(expected.values(), reverse=True)[:5], rtol=1e-5)


def test_equal_scores_are_cut_by_row() -> None:
    assert Bm25([words_of_texts(["cat dog"] * 9)]).top(["cat"], 4).ids.tolist() == [[0, 1, 2, 3]]


def test_only_allowed_rows() -> None:
    bm25 = Bm25([words_of_texts(["red cat", "red dog"]), words_of_texts(["red fox", "blue"])])
    assert bm25.top(["red"], 4, [np.array([False, True]), None]).ids.tolist() == [[1, 2, -1, -1]]


@pytest.mark.parametrize(
    ("rule", "text", "words"),
    [
        (WordRule(), "The Cat's running, x 42!", ["cat", "running", "42"]),
        (WordRule(language="german"), "Die Häuser", ["die", "häuser"]),
        (WordRule(), "cafe\u0301 ＡＢＣ", ["café", "abc"]),
        (WordRule(), "हिन्दी में", ["हिन्दी", "में"]),
        (WordRule(), "кошка 猫猫", ["кошка", "猫猫"]),
    ],
)
def test_words_of_any_script(rule: WordRule, text: str, words: list[str]) -> None:
    assert rule.words(text) == words


def test_stems() -> None:
    pytest.importorskip("Stemmer")
    assert WordRule(stem=True).words("running runs") == ["run", "run"]
    assert WordRule(language="german", stem=True).words("Häuser") == ["haus"]
    with pytest.raises(SearchError, match="no stemmer"):
        rule_of("stem-klingon")


def test_an_index_finds_words_over_its_segments(tmp_path: Path) -> None:
    texts = ["red cat", "red dog", "blue cat", "old house"]
    index = SearchIndex.build(tmp_path / "ix", [Document(i, t) for i, t in enumerate(texts)], encoder=ToyEncoder())
    index.add([Document("new", "old red barn")])
    words = [segment.documents.words for segment in SearchIndex.open(tmp_path / "ix").segments]
    assert [segment.rows for segment in words] == [4, 1]
    expected = reference([*texts, "old red barn"], "old red")
    assert Bm25(words).top(["old red"], 5).ids[0, :4].tolist() == sorted(expected, key=lambda i: (-expected[i], i))


def test_a_segment_without_word_lists_is_indexed_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentemb.search.store import documents

    monkeypatch.setattr(documents, "write_words", lambda *_: None)
    index = SearchIndex.build(tmp_path / "ix", [Document(0, "red cat"), Document(1, "dog")], encoder=ToyEncoder())
    assert index.segments[0].documents.words.rows_with("cat") == 1
