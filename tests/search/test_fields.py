"""Documents and queries whose vector is the weighted mean of their fields' vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_search_cli import run
from toy import ToyEncoder

from sentemb.errors import DataError, SearchError
from sentemb.search import SearchIndex
from sentemb.search.store.embedding import mean_of_fields

WEIGHTS = {"title": 0.3, "text": 0.7}
ROWS = [{"id": 0, "title": "red cat", "text": "old house"}, {"id": 1, "text": "blue dog"},
        {"id": 2, "title": "old house", "text": "red cat", "year": 3}]


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.fixture
def index(tmp_path: Path) -> SearchIndex:
    return SearchIndex.build(tmp_path / "ix", [dict(row) for row in ROWS], encoder=ToyEncoder(), fields=WEIGHTS)


def test_the_mean_by_a_loop() -> None:
    rows = [{"a": "red cat", "b": "dog"}, {"b": "red cat"}]
    encoder = ToyEncoder()
    mean = mean_of_fields(encoder, rows, {"a": 2.0, "b": 1.0}, "")
    red, dog = ToyEncoder().encode(["red cat", "dog"])
    np.testing.assert_allclose(mean, [(2 * red + dog) / 3, red], rtol=1e-5)
    assert sorted(encoder.encoded) == ["dog", "red cat"]  # once each


def test_an_index_holds_the_mean_of_fields_also_of_added_documents(index: SearchIndex) -> None:
    index.add([{"id": 3, "title": "blue dog", "text": "red dog"}])
    reopened = SearchIndex.open(index.folder, encoder=ToyEncoder())
    assert reopened.manifest.model.fields == WEIGHTS
    positions = reopened.search_positions(reopened.vectors_of_texts(["red"]), 4).ids[0]
    stored = reopened.generation.vectors_at(positions)
    vectors = {hit.id: vector for hit, vector in zip(reopened.search("red", 4), stored, strict=True)}
    for row in [*ROWS, {"id": 3, "title": "blue dog", "text": "red dog"}]:
        encoded = {field: ToyEncoder().encode([row[field]])[0] for field in WEIGHTS if field in row}
        expected = unit(sum(WEIGHTS[field] * vector for field, vector in encoded.items()))
        np.testing.assert_allclose(vectors[row["id"]], expected, atol=1e-6)
    assert reopened.get([2])[2].metadata == {"title": "old house", "year": 3}


def test_queries_with_fields(index: SearchIndex) -> None:
    query = index.vectors_of_fields([{"title": "red cat", "text": "old house"}])
    hit = index.search(query, 1)[0][0]
    assert (hit.id, round(hit.score, 5)) == (0, 1.0)
    with pytest.raises(SearchError, match="a query has the field body; with weights"):
        index.vectors_of_fields([{"body": "x"}])


def test_one_field_is_the_plain_index(tmp_path: Path) -> None:
    plain = SearchIndex.build(tmp_path / "a", [dict(row) for row in ROWS], encoder=ToyEncoder())
    fields = SearchIndex.build(tmp_path / "b", [dict(row) for row in ROWS], encoder=ToyEncoder(), fields={"text": 2.0})
    one, two = (index.search("red cat", 3) for index in (plain, fields))
    assert [hit.id for hit in one] == [hit.id for hit in two]
    np.testing.assert_allclose([hit.score for hit in one], [hit.score for hit in two], atol=1e-6)


@pytest.mark.parametrize(("rows", "fields", "message"), [
    ([{"id": 7, "text": "x", "title": 3}], WEIGHTS, 'document 7: field "title" is 3; a field with a weight holds text'),
    ([{"id": 7, "text": "x"}], {"title": 1.0}, "document 7: none of the fields title holds a text"),
])  # fmt: skip
def test_documents_without_such_texts_are_named(tmp_path: Path, rows, fields, message) -> None:
    with pytest.raises(DataError, match=message):
        SearchIndex.build(tmp_path / "ix", rows, encoder=ToyEncoder(), fields=fields)


def test_the_verb_and_bad_weights(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = tmp_path / "d.jsonl", tmp_path / "ix"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    build = ("index", str(data), "-o", str(folder), "-m", str(tiny_bert), "--set")
    for setting, message in (("fields={title=-1}", "a weight is above 0"), ("fields=title", "fields")):
        code, _, err = run(capsys, *build, setting)
        assert code == 2
        assert message in err
        assert not folder.exists()
    assert run(capsys, *build, "fields={title=0.3,text=0.7}")[0] == 0
    assert SearchIndex.open(folder).manifest.model.fields == WEIGHTS
    with pytest.raises(SearchError, match="vectors are given"):
        SearchIndex.build(tmp_path / "v", None, vectors=np.eye(3, dtype=np.float32), fields=WEIGHTS)
