"""Mined negatives as views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sentemb.errors import RecipeError
from sentemb.types import View
from sentemb.views import COPIES
from sentemb.views.mined import MinedViews
from sentemb.views.twice import Twice

TOKENS = [[2, 10 + i, 3] for i in range(6)]


class Window:
    """The next ``width`` sentences are the neighbours; only texts below 5 are known."""

    def __init__(self, width: int, column: str = "anchor") -> None:
        self.width, self.column = width, column

    def window(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (text[:, None] + np.arange(1, self.width + 1)) % 6, text < 5


@pytest.fixture
def mine(examples_of, context_of):
    def make(part: MinedViews, source: object, rows: np.ndarray, **columns: list[list[int]]) -> list[np.ndarray]:
        dataset = examples_of(**(columns or {"anchor": TOKENS}))
        context = replace(context_of(dataset), companions={"neighbours": source})
        examples = dataset.take(rows)
        maker = dict(Twice()(examples, context))
        if "positive" in columns:
            maker["positive"] = View(column=examples.columns["positive"], ids=examples.ids)
        views = part(maker, context)
        assert tuple(views) == part.makes
        found = []
        for view in views.values():
            found.append(view.ids - 50)
            assert np.array_equal(view.column.flat.reshape(-1, 3)[:, 1] % 10, found[-1])
        return found

    return make


def test_draws_different_neighbours_evenly(mine):
    first, second = mine(MinedViews(count=2), Window(3), np.zeros(6000, dtype=np.int64))
    assert (first != second).all()
    for drawn in (first, second):
        shares = [(drawn == row).mean() for row in (1, 2, 3)]
        assert shares == pytest.approx([1 / 3] * 3, abs=0.03)


def test_fills_up_where_there_are_too_few(mine):
    drawn = mine(MinedViews(count=3), Window(2), np.array([1]))
    assert {int(rows[0]) for rows in drawn} == {2, 3}
    assert drawn[0] == drawn[2]


def test_unknown_texts_get_random_examples(mine):
    drawn, = mine(MinedViews(), Window(1), np.full(3000, 5))
    assert set(drawn.tolist()) == set(range(6))


def test_looks_at_the_companions_column(mine):
    positive = [[2, 20 + i, 3] for i in range(6)]
    drawn, = mine(MinedViews(), Window(1, "positive"), np.arange(3), anchor=TOKENS, positive=positive)
    assert drawn.tolist() == [1, 2, 3]


def test_refuses_no_negative_and_no_companion(examples_of, context_of):
    with pytest.raises(ValueError, match="count = 0"):
        MinedViews(count=0)
    dataset = examples_of(anchor=TOKENS)
    context = context_of(dataset)
    with pytest.raises(RecipeError, match='needs a companion "neighbours"'):
        MinedViews()(Twice()(dataset, context), context)


def test_is_a_copy():
    assert COPIES["mined"] is MinedViews
    assert MinedViews(count=2).makes == ("mined_1", "mined_2")
