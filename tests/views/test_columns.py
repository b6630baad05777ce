from __future__ import annotations

import pytest

from sentemb.errors import DataError
from sentemb.views.columns import Columns
from sentemb.views.view import ViewMaker


def test_every_column_is_a_view_in_the_datas_order(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3]], positive=[[2, 8, 3]], negative_1=[[2, 9, 3]], negative_2=[[2, 10, 3]])
    views = Columns()(examples, context_of(examples))
    assert list(views) == ["anchor", "positive", "negative_1", "negative_2"]
    for name, view in views.items():
        assert view.column is examples.columns[name]
        assert view.ids is examples.ids
        assert view.targets is None


def test_a_missing_positive_says_what_to_do(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3]], negative=[[2, 9, 3]])
    with pytest.raises(DataError, match=r'no column positive; found: anchor, negative; .*use = "twice"'):
        Columns()(examples, context_of(examples))


def test_keeps_the_protocol():
    assert isinstance(Columns(), ViewMaker)
    assert Columns().columns == {"anchor", "positive"}
