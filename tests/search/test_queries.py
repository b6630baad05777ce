"""Hybrid, diverse, range, set and more-like queries; re-ranking, care and kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy import ToyEncoder, vectors

from sentemb.errors import SearchError
from sentemb.parts import to_table
from sentemb.search import Document, SearchIndex
from sentemb.search.query.words import fuse
from sentemb.search.store.embedding import VectorRule
from sentemb.search.store.segment import MAX_SEGMENTS, to_merge
from sentemb.search.vectors.choice import choose

TEXTS = ["red cat", "red dog", "blue cat", "blue dog", "old house", "red red cat"]


@pytest.fixture
def index(tmp_path: Path) -> SearchIndex:
    documents = [Document(i, text, {"n": i}) for i, text in enumerate(TEXTS)]
    return SearchIndex.build(tmp_path / "ix", documents, encoder=ToyEncoder())


def test_fusion_by_hand() -> None:
    found = fuse([np.array([[3, 1, 2]]), np.array([[1, 9, -1]])], 3)
    assert found.ids.tolist() == [[1, 3, 9]]
    expected = [1 / 62 + 1 / 61, 1 / 61, 1 / 62]
    np.testing.assert_allclose(found.scores[0], expected, rtol=1e-6)


def test_hybrid_honours_filters_and_deletions(index: SearchIndex) -> None:
    assert index.hybrid(["house"], 1)[0][0].text == "old house"
    filtered = index.hybrid(["red cat"], 6, where="n in (0, 2)")[0]
    assert sorted(hit.id for hit in filtered) == [0, 2]
    index.delete([0])
    assert 0 not in [hit.id for hit in index.hybrid(["red cat"], 6)[0]]


def test_hybrid_takes_vectors_of_elsewhere(index: SearchIndex) -> None:
    given = index.vectors_of_texts(["old house"])
    assert index.hybrid(["cat"], 6, vectors=given) != index.hybrid(["cat"], 6)
    assert index.hybrid(["old house"], 6, vectors=given) == index.hybrid(["old house"], 6)


def test_documents_of_a_filter_are_live_and_in_order(index: SearchIndex) -> None:
    index.delete([2])
    index.upsert([Document(0, "red cow", {"n": 9})])
    assert [one.id for one in index.documents()] == [1, 3, 4, 5, 0]
    assert [one.text for one in index.documents("n > 3")] == ["old house", "red red cat", "red cow"]


def test_words_alone(index: SearchIndex) -> None:
    assert [hit.text for hit in index.by_words(["house"])[0]] == ["old house"]
    assert [hit.id for hit in index.by_words(["red cat"], 2, where="n != 5")[0]] == [0, 1]
    index.delete([0])
    assert 0 not in [hit.id for hit in index.by_words(["red cat"])[0]]


def test_a_text_meets_the_rule_of_vectors_once(index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []
    plain = VectorRule.apply
    monkeypatch.setattr(VectorRule, "apply", lambda self, *given: applied.append(1) or plain(self, *given))
    index.search("red cat")
    assert len(applied) == 1


def test_queries_are_encoded_in_the_precision_of_the_build(tiny_bert: Path, tmp_path: Path) -> None:
    from sentemb.encoder import Encoder

    SearchIndex.build(tmp_path, TEXTS, encoder=Encoder.load(tiny_bert, precision="fp32")).close()
    assert getattr(SearchIndex.open(tmp_path).encoder, "precision", "") == "fp32"
    assert getattr(SearchIndex.open(tmp_path, encoder=tiny_bert).encoder, "precision", "") == "fp32"
    assert getattr(SearchIndex.open(tmp_path, precision="bf16").encoder, "precision", "") == "bf16"


def test_diverse_results_equal_a_loop(index: SearchIndex) -> None:
    query = index.vectors_of_texts(["red cat"])
    found = index.diverse(query, 4, weight=0.4)[0]
    all_vectors = index.generation.vectors_at(np.arange(6))
    relevance, similar = all_vectors @ query[0], all_vectors @ all_vectors.T
    picked: list[int] = []
    while len(picked) < 4:
        value = {
            d: 0.4 * relevance[d] - 0.6 * max((similar[d, p] for p in picked), default=0)
            for d in range(6) if d not in picked
        }
        picked.append(max(value, key=lambda d: value[d]))
    assert [hit.id for hit in found] == picked
    assert index.diverse(query, 4, weight=1.0) == index.search(query, 4)


@pytest.mark.parametrize("kind", ["flat", "binary", "IVF2,Flat"])
def test_range_gives_everything_within(kind: str, tmp_path: Path) -> None:
    rows, queries = np.split(vectors(305), [300])
    index = SearchIndex.build(tmp_path, None, vectors=rows, kind=kind, target_recall=1.0)
    index.delete(list(range(0, 300, 3)))
    for query, hits in zip(queries, index.within(queries, 0.5), strict=True):
        places, scores = [int(hit.id) for hit in hits], np.array([hit.score for hit in hits])
        assert (np.diff(scores) <= 0).all()
        assert (scores >= 0.5).all()
        assert all(place % 3 for place in places)
        if kind != "binary":
            live = [i for i in range(300) if i % 3 and float(rows[i] @ query) >= 0.5]
            assert sorted(places) == live


def test_set_queries(index: SearchIndex) -> None:
    like = index.vectors_of_texts(["red", "cat"])
    both = index.combined(like, k=2)
    assert {hit.text for hit in both} == {"red cat", "red red cat"}
    without = index.combined(["cat"], ["red"], 1)
    assert without[0].text == "blue cat"
    with pytest.raises(SearchError, match="at least one text"):
        index.combined(like[:0], k=2)


def test_more_like_leaves_the_document_out(index: SearchIndex) -> None:
    hits = index.similar_to([0], 2)[0]
    assert hits[0].text == "red red cat"
    assert 0 not in [hit.id for hit in hits]
    with pytest.raises(SearchError, match="no document with id 77"):
        index.similar_to([77], 2)


def test_reranking_orders_by_the_other_model(index: SearchIndex) -> None:
    hits = index.search("red", 4)
    ranked = index.rerank("red", hits, lambda pairs: [-len(text) for _, text in pairs], 2)
    assert [hit.score for hit in ranked] == sorted((-float(len(hit.text or "")) for hit in hits), reverse=True)[:2]
    with pytest.raises(SearchError, match="not finite"):
        index.rerank("red", hits, lambda pairs: [float("nan")] * len(pairs))


def test_verification_finds_altered_files(index: SearchIndex) -> None:
    assert index.verify() == 2
    path = index.folder / index.manifest.segments[0].documents.name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SearchError, match="SHA-256"):
        index.verify()


def test_tuning_on_queries_is_stored(tmp_path: Path) -> None:
    rows, queries = np.split(vectors(1040), [1000])
    index = SearchIndex.build(tmp_path, None, vectors=rows, kind="IVF16,Flat", target_recall=0.2)
    low = index.manifest.tuned
    index.delete([1, 2, 3])
    found = index.tune(queries, target_recall=1.0)
    assert low is not None
    assert low.effort is not None
    assert found.effort is not None
    assert found.effort > low.effort
    assert found.recall == 1.0
    assert SearchIndex.open(tmp_path).manifest.tuned == found
    assert index.stats().deleted == 3


@pytest.mark.parametrize(
    ("rows", "memory", "recall", "kind"),
    [(1000, 1 << 30, 0.95, "flat"), (100_000, 1 << 30, 1.0, "flat"), (1_000_000, 4 << 30, 0.95, "ivf-flat"),
     (1_000_000, 600 << 20, 0.95, "ivf-sq8"), (1_000_000, 100 << 20, 0.9, "ivf-pq")],
)  # fmt: skip
def test_automatic_choice_says_why(rows: int, memory: int, recall: float, kind: str) -> None:
    choice = choose("auto", rows=rows, dimension=384, memory_bytes=memory, target_recall=recall, rescore=None)
    assert to_table(choice.kind) == {"use": kind}
    assert f"{rows:,}" in choice.reason


def test_automatic_choice_refuses_the_impossible() -> None:
    with pytest.raises(SearchError, match="raise the budget"):
        choose("auto", rows=10**9, dimension=384, memory_bytes=1 << 30, target_recall=0.9, rescore=None)
    with pytest.raises(SearchError, match="target recall 1"):
        choose("auto", rows=10**7, dimension=384, memory_bytes=1 << 30, target_recall=1.0, rescore=None)


def test_merging_keeps_segments_few_and_rewrites_little() -> None:
    rows: list[int] = [100_000]
    written = 0
    for _ in range(2000):
        rows.append(50)
        chosen = to_merge(rows)
        if chosen:
            merged = sum(rows[place] for place in chosen)
            written += merged
            rows = [size for place, size in enumerate(rows) if place not in chosen] + [merged]
        assert len(rows) <= MAX_SEGMENTS
    assert sum(rows) == 200_000
    assert written < 20 * 100_000  # each added row about log2(2000) times


def test_no_results_cannot_be_asked_for_and_an_empty_index_has_none(tmp_path: Path) -> None:
    index = SearchIndex.build(tmp_path, ["a b", "c d"], encoder=ToyEncoder())
    queries = index.vectors_of_texts(["a"])
    for ask in (
        lambda k: index.search_positions(queries, k), lambda k: index.hybrid(["a"], k),
        lambda k: index.diverse(queries, k, pool=9), lambda k: index.combined(queries, k=k),
        lambda k: index.similar_to([0], k),
    ):
        ask(1)
        with pytest.raises(SearchError, match="k = 0"):
            ask(0)
    for many in (index.search(queries, 10**11), index.hybrid(["a"], 10**11), index.by_words(["a"], 10**11),
                 index.diverse(queries, 10**11), [index.combined(queries, None, 10**11)],
                 index.similar_to([0], 10**11)):
        assert len(many[0]) <= 2
    index.delete([0, 1])
    for hits in (index.search(queries, 3), index.hybrid(["a"], 3), index.by_words(["a"]), index.diverse(queries, 3),
                 index.within(queries, 0.1), [index.combined(queries, None, 3)]):
        assert hits == [[]]
