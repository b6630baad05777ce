from __future__ import annotations

from dataclasses import replace

import pytest

from sentemb.errors import DataError, PartError
from sentemb.views import BySource, Columns, Repeat, Twice


def test_every_source_has_its_own_maker(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3]], positive=[[2, 8, 3]])
    views = BySource(makers={"pairs": Columns(), "wiki": Twice(), "notes": Repeat(count=3)})
    context = context_of(examples)
    assert views(examples, replace(context, source="pairs"))["positive"].column is examples.columns["positive"]
    assert views(examples, replace(context, source="wiki"))["positive"].column is examples.columns["anchor"]
    assert list(views(examples, replace(context, source="notes"))) == ["anchor", "positive", "positive_2"]
    assert views.of("pairs") == Columns()


def test_a_source_without_a_maker_is_named(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3]])
    views = BySource(makers={"pairs": Columns()})
    with pytest.raises(DataError, match='makers names pairs, and not the source "wiki"'):
        views.of("wiki")
    with pytest.raises(DataError, match="makers names pairs, and not data without named sources"):
        views(examples, context_of(examples))


def test_makers_are_view_makers():
    assert BySource(makers={"a": "twice"}).makers == {"a": Twice()}
    with pytest.raises(PartError, match="names a view maker for every source"):
        BySource(makers={})
    with pytest.raises(PartError, match="twicer"):
        BySource(makers={"a": "twicer"})
