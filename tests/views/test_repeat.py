"""repeat: the same sentence under every name."""

from __future__ import annotations

import pytest

from sentemb.views import Repeat, Twice


def test_every_name_holds_one_view(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3], [2, 8, 9, 3]])
    views = Repeat(count=4)(examples, context_of(examples))
    assert list(views) == ["anchor", "positive", "positive_2", "positive_3"] == list(Repeat(count=4).makes(()))
    assert len({id(view) for view in views.values()}) == 1
    assert views["positive_3"].column is examples.columns["anchor"]


def test_two_are_twice(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3]])
    assert list(Repeat(count=2)(examples, context_of(examples))) == list(Twice()(examples, context_of(examples)))


def test_refuses_one_copy():
    with pytest.raises(ValueError, match="count"):
        Repeat(count=1)
