"""The filter language, against Python's own comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import vectors

from sentemb.errors import SearchError
from sentemb.search import SearchIndex
from sentemb.search.query.explanation import why_nothing
from sentemb.search.query.expression import condition

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "text": "first", "year": 2019, "lang": "en", "score": 0.5, "draft": True},
    {"id": "b", "text": "second", "year": 2020, "lang": "de", "score": 1.5, "draft": False},
    {"id": "c", "text": "third", "year": 2021, "lang": "en", "title_": "a draft"},
    {"id": "d", "text": "fourth", "year": "2020", "lang": None},
    {"id": 5, "text": "it's \"five\"", "odd name": 1, "nested": {"deep": 2}, "tags": ["concat", 7], "a.b": 3,
     "back\\slash": 1, "a\ttab": 2, "new\nline": 3, "it's": 4, "lines": "one\ntwo"},
    {"id": "f", "text": "sixth", "tags": ["cat", True], "a": {"b": 3}},
    {"id": "g", "text": "seventh", "tags": "a cat", "years": "20201"},
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    folder = tmp_path_factory.mktemp("filters")
    return SearchIndex.build(folder, DOCUMENTS, vectors=vectors(7), kind="flat", indexed_fields=("year",))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("year >= 2020", "bc"), ("year = 2020", "b"), ('year = "2020"', "d"), ("year != 2020", "acd"),
        ("not year = 2020", "acd5fg"), ("year in (2019, 2021)", "ac"), ('lang = "en" and year < 2021', "a"),
        ('lang = "en" or lang = "de"', "abc"), ("lang = null", "d5fg"), ("lang != null", "abc"), ("draft = true", "a"),
        ("draft = false", "b"), ("score > 0.5", "b"), ("score >= 5e-1", "ab"), ('title_ contains "draft"', "c"),
        ('text startswith "f"', "ad"), ('id = "a"', "a"), ("id = 5", "5"), ('id in ("a", 5)', "a5"),
        ('id = "5"', "5"), ('id in ("5", "f")', "5f"), ("`odd name` = 1", "5"), ("`id` = null and id = 5", "5"),
        ('not (lang = "en" or year = 2020) and year != null', "d"), ("missing = 1", ""),
        ('text contains "it\'s \\"five"', "5"), ({"year": 2020}, "b"), ({"year": (2020, None)}, "bc"),
        ({"year": (2019, 2020), "lang": ["en", "fr"]}, "a"), ({"lang": None}, "d5fg"), ({}, "abcd5fg"),
        ("year>=2020", "bc"),
        ('"cat" in tags', "f"), ("7 in tags", "5"), ('tags contains "cat"', "fg"), ('not "cat" in tags', "abcd5g"),
        ("nested.deep = 2", "5"), ("a.b = 3", "5f"), ({"a.b": (3, 4)}, "5f"), ("`back\\slash` = 1", "5"),
        ("`a\ttab` = 2", "5"), ("`new\nline` = 3", "5"), ("`it's` = 4", "5"), ('lines contains "e\\nt"', "5"),
        ('lines = "one\\u000atwo"', "5"), ('year contains "20"', "d"), ("not (year > 2020 or draft = true)", "bd5fg"),
        ("not not year = 2020", "b"),
        ("YEAR = 2020", ""), ("year = 2020 OR year = 2019", "ab"),
    ],
)  # fmt: skip
def test_filters_find_what_they_say(index: SearchIndex, where: Any, expected: str) -> None:
    hits = index.search(vectors(1, seed=9), 7, where=where)[0]
    assert sorted(str(hit.id) for hit in hits) == sorted(expected)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "ends where a field name"), ("year", "ends where a comparison"), ("year ~ 3", "where a comparison"),
        ("year = (3)", "where a value"), ("year = 3)", "where and, or, or the end"), ("(year = 3", 'ends where ")"'),
        ("= 3", "where a field name"), ("year = en", "in quotes"), ("year < null", "null can only"),
        ("year in (1, null)", "null cannot be in a list"),
        ('a"b = 1', "position 2: '\"b = 1' stands where a comparison"),
        ("a b = 1", "where a comparison"), ('year = "x', "where a value"),
        ('`a"b` = 1', "quotes"), ("year > true", "true can only be compared"), ({"a": "x\x00y"}, "holds a NUL"),
        ('a = "\\q"', "unknown escape"), ('a = "\\ud800"', "not valid Unicode"), ('"cat" = 3', 'where "in"'),
        ('"cat" in text', "no list"), ("text contains 3", "not a text"),
        ("(" * 60 + "a = 1" + ")" * 60, "nested deeper"),
        ({"a": object()}, "is not a text, number"), ({"a": (1, 2, 3)}, "a tuple is a range"),
        ("year = 3; drop", "where and, or"),
    ],
)  # fmt: skip
def test_faults_are_named(where: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message.replace("(", r"\(").replace(")", r"\)")):
        condition(where)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (" or ".join(f"year = {year}" for year in range(3000)), "abc"),
        (" and ".join(["year = 2020", *(f"year != {year}" for year in range(3000, 6000))]), "b"),
        ("not " * 20 + "year = 2020", "b"), ("(" * 40 + "year = 2020" + ")" * 40, "b"),
        ({"id": ["b", *range(300_000)]}, "b5"), ({"year": [2020.0, float("inf"), *range(3000, 6000)]}, "b"),
        ({"draft": [True, *(f"x{i}" for i in range(2000))]}, "a"), ({"id": {"a", *map(str, range(1001))}}, "a5"),
        ({"year": np.int64(2020)}, "b"), ({"score": np.float32(0.5)}, "a"),
    ],
)
def test_long_filters_and_numpy_values(index: SearchIndex, where: Any, expected: str) -> None:
    hits = index.search(vectors(1, seed=9), 5, where=where)[0]
    assert sorted(str(hit.id) for hit in hits) == sorted(expected)


def test_what_sqlite_cannot_nest_is_refused_here(index: SearchIndex) -> None:
    refusals: list[str] = []
    for depth in range(1, 45):
        where = "year = 2020"
        for level in range(depth):
            where = f"(year = 2020 {'or' if level % 2 else 'and'} year = 1 or not ({where}))"
        try:
            index.search(vectors(1), 5, where=where)
        except SearchError as error:
            refusals.append(str(error))
    assert refusals
    assert all("nested deeper" in told or "parser stack overflow" in told for told in refusals)


@pytest.mark.parametrize("where", [5, {5: 5}, ["year"]])
def test_what_is_no_filter(where: Any) -> None:
    with pytest.raises(SearchError, match="found"):
        condition(where)


def test_unknown_fields_are_told(index: SearchIndex) -> None:
    told = why_nothing(index.generation, 'yeer > 3 and text contains "x" and lang = "en"')
    assert told is not None
    assert told.startswith('no document has the field "yeer"; known: ')
    assert told.endswith("did you mean year?")
    assert why_nothing(index.generation, {"year": 1, "nope": 2}) is not None
    assert why_nothing(index.generation, "year > 3 or draft = true and id = 1") is None
    assert why_nothing(index.generation, '"x" in tags and nested.deep = 9 and lang = null') is None
    assert why_nothing(index.generation, None) is None


@pytest.mark.parametrize(
    ("where", "message"),
    [('score > "1"', '"score" holds numbers, and the filter compares it with text'),
     ("lang in (1, 2)", '"lang" holds text, and the filter compares it with numbers'),
     ({"draft": "true"}, '"draft" holds true or false, and the filter compares it with text')],
)  # fmt: skip
def test_values_of_another_type_are_told(index: SearchIndex, where: Any, message: str) -> None:
    assert why_nothing(index.generation, where) == message


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_a_refusal(source: str) -> None:
    try:
        found = condition(source)
    except SearchError:
        return
    assert found is not None
    assert source.count(";") == 0 or "?" in found.sql or "'" not in found.sql


@settings(deadline=None, max_examples=100)
@given(value=st.one_of(TEXT, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)))
def test_values_are_bound_never_pasted(value: Any) -> None:
    found = condition({"field": value})
    assert found is not None
    assert found.values == (value,)
    assert found.sql == "json_extract(metadata, '$.\"field\"') = ?"


@pytest.mark.parametrize(
    ("where", "is_served"),
    [("year = 2020", True), ("year >= 2020 and year < 2022", True), ({"year": [2019, 2021]}, True),
     ("year = 2019 or year = 2021", True), ('year > 2020 and lang = "en"', True), ("not year = 2020", False),
     ("score > 0.5", False)],
)  # fmt: skip
def test_an_index_of_the_field_serves_the_filter(index: SearchIndex, where: Any, is_served: bool) -> None:
    compiled = condition(where)
    assert compiled is not None
    sql = f"EXPLAIN QUERY PLAN SELECT row FROM documents WHERE {compiled.sql}"
    plan = " ".join(row[-1] for row in index.segments[0].documents.query(sql, compiled.values))
    assert ("USING INDEX field_0" in plan or "USING COVERING INDEX field_0" in plan) == is_served, plan
