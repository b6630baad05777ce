from __future__ import annotations

from sentemb.views.twice import Twice
from sentemb.views.view import ViewMaker


def test_anchor_and_positive_are_one_object(examples_of, context_of):
    examples = examples_of(anchor=[[2, 7, 3], [2, 8, 9, 3]], negative=[[2, 3], [2, 3]])
    views = Twice()(examples, context_of(examples))
    assert list(views) == ["anchor", "positive"]
    assert views["anchor"].column is views["positive"].column is examples.columns["anchor"]
    assert views["anchor"].ids.tolist() == [50, 51]


def test_keeps_the_protocol():
    assert isinstance(Twice(), ViewMaker)
    assert Twice().columns == {"anchor"}
