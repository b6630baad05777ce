"""The filter language, against Python's own comparisons."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import vectors

from sentemb.errors import SearchError
from sentemb.search import SearchIndex
from sentemb.search.expression import condition

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "text": "first", "year": 2019, "lang": "en", "score": 0.5, "draft": True},
    {"id": "b", "text": "second", "year": 2020, "lang": "de", "score": 1.5, "draft": False},
    {"id": "c", "text": "third", "year": 2021, "lang": "en", "title_": "a draft"},
    {"id": "d", "text": "fourth", "year": "2020", "lang": None},
    {"id": 5, "text": "it's \"five\"", "odd name": 1, "nested": {"deep": 2}},
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    folder = tmp_path_factory.mktemp("filters")
    return SearchIndex.build(folder, DOCUMENTS, vectors=vectors(5), kind="flat", indexed_fields=("year",))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("year >= 2020", "bc"), ("year = 2020", "b"), ('year = "2020"', "d"), ("year != 2020", "acd"),
        ("not year = 2020", "acd5"), ("year in (2019, 2021)", "ac"), ('lang = "en" and year < 2021', "a"),
        ('lang = "en" or lang = "de"', "abc"), ("lang = null", "d5"), ("lang != null", "abc"), ("draft = true", "a"),
        ("draft = false", "b"), ("score > 0.5", "b"), ("score >= 5e-1", "ab"), ('title_ contains "draft"', "c"),
        ('text startswith "f"', "ad"), ('id = "a"', "a"), ("id = 5", "5"), ('id in ("a", 5)', "a5"),
        ("`odd name` = 1", "5"), ('not (lang = "en" or year = 2020) and year != null', "d"), ("missing = 1", ""),
        ('text contains "it\'s \\"five"', "5"), ({"year": 2020}, "b"), ({"year": (2020, None)}, "bc"),
        ({"year": (2019, 2020), "lang": ["en", "fr"]}, "a"), ({"lang": None}, "d5"), ({}, "abcd5"),
        ("year>=2020", "bc"),
        ("YEAR = 2020", ""), ("year = 2020 OR year = 2019", "ab"),
    ],
)  # fmt: skip
def test_filters_find_what_they_say(index: SearchIndex, where: Any, expected: str) -> None:
    hits = index.search(vectors(1, seed=9), 5, where=where)[0]
    assert sorted(str(hit.id) for hit in hits) == sorted(expected)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "empty"), ("year", "ends where a comparison"), ("year ~ 3", "cannot be read"),
        ("year = (3)", "not a value"), ("year = 3)", "left over"), ("(year = 3", 'ends where ")"'),
        ("= 3", "not a field name"), ("year = en", "in quotes"), ("year < null", "null can only"),
        ("year in (1, null)", "null cannot be in a list"), ('a"b = 1', "cannot be read"),
        ("a b = 1", "not a comparison"),
        ("`a'b` = 1", "quotes"), ("text contains 3", "not a text"), ("(" * 60 + "a = 1" + ")" * 60, "nested deeper"),
        ({"a": object()}, "is not a text, number"), ({"a": (1, 2, 3)}, "a tuple is a range"),
        ("year = 3; drop", "cannot be"),
    ],
)  # fmt: skip
def test_faults_are_named(where: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message.replace("(", r"\(").replace(")", r"\)")):
        condition(where)


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
@given(value=st.one_of(st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)))
def test_values_are_bound_never_pasted(value: Any) -> None:
    found = condition({"field": value})
    assert found is not None
    assert found.values == (value,)
    assert found.sql == "(coalesce(json_extract(metadata, '$.\"field\"') = ?, 0))"
