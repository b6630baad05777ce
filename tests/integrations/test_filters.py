"""What programs write as filters finds what they meant, whatever stands in names and values."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentemb.errors import SearchError
from sentemb.integrations import filters
from sentemb.search.query.expression import comparisons_of, condition

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)))


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(value=TEXTS | NUMBERS | st.booleans())
def test_every_value_arrives_as_it_was(value) -> None:
    ((name, found),) = comparisons_of(filters.compared("a field", "=", value))
    assert name == "a field"
    assert found == value
    assert type(found) is type(value)


@given(name=TEXTS.filter(lambda name: name and "`" not in name and '"' not in name))
def test_every_name_is_one_name(name) -> None:
    assert comparisons_of(filters.compared(name, "=", 1)) == [(name, 1)]


def test_an_attack_is_a_value() -> None:
    where = filters.of_operators({"lang": '" or 1 = 1 or lang = "'})
    assert comparisons_of(where) == [("lang", '" or 1 = 1 or lang = "')]
    with pytest.raises(SearchError, match="backticks"):
        filters.of_operators({"a` = 1 or `b": 1})


def test_numpy_dates_and_many_parts() -> None:
    assert filters.compared("n", "<", np.float32(0.5)) == "`n` < 0.5"
    assert filters.compared("day", ">=", datetime.date(2024, 1, 2)) == '`day` >= "2024-01-02"'
    many = filters.any_of(filters.compared("n", "=", number) for number in range(3000))
    assert condition(many) is not None
    assert condition(filters.all_of([])) is not None
    assert filters.among("n", []) == filters.NOTHING


@pytest.mark.parametrize("where", [
    {"$or": {"a": 1}}, {"$and": ["a = 1"]}, {"$nor": [{"a": 1}]}, {3: 1}, {"a": {"$in": "text"}}, {"a": [1]},
    {"a": float("nan")}, {"a": {"b": 1}}, {"": 1}, ["a"], {"$not": 3}, {"a": {"$not": 3}},
])  # fmt: skip
def test_refusals(where) -> None:
    with pytest.raises(SearchError, match="filter"):
        filters.of_operators(where)
