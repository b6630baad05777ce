"""repeat: the same sentence under every name."""

from __future__ import annotations

import pytest

from sentemb.views import Repeat, Twice


def test_every_name_holds_one_view(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3], [2, 8, 9, 3]])
    views = Repeat(count=4)(examples, context_of(examples))
    assert list(views) == ["anchor", "positive", "positive_2", "positive_3"] == list(Repeat(count=4).makes(()))
    assert all(view.column is examples.columns["anchor"] for view in views.values())
    assert all(view.ids is examples.ids for view in views.values())


def test_two_are_twice(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3]])
    assert list(Repeat(count=2)(examples, context_of(examples))) == list(Twice()(examples, context_of(examples)))


def test_refuses_one_copy():
    with pytest.raises(ValueError, match="count"):
        Repeat(count=1)


def test_views_may_have_dropout_rates_of_their_own(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3]])
    views = Repeat(count=3, dropouts=[0.1, 0, 0.2])(examples, context_of(examples))
    assert {name: view.dropout for name, view in views.items()} == {"anchor": 0.1, "positive": 0, "positive_2": 0.2}
    assert all(view.dropout is None for view in Repeat()(examples, context_of(examples)).values())
    with pytest.raises(ValueError, match="2 rates for count = 4 views"):
        Repeat(dropouts=[0.1, 0.2])
    with pytest.raises(ValueError, match="less than 1"):
        Repeat(count=2, dropouts=[0.1, 1.0])
