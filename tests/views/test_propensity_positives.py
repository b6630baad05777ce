"""Positives drawn with inverse propensity."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sentemb.errors import RecipeError
from sentemb.maths.propensity import Candidates
from sentemb.types import Examples
from sentemb.views import PARTS
from sentemb.views.propensity_positives import PropensityPositives

TOKENS = [[2, 10 + i, 3] for i in range(6)]


class Table:
    """Three candidates of each of six sentences: the next three rows."""

    positive_threshold = 0.5

    def __init__(self, sem: list[float], propensity: list[float]) -> None:
        self.sem, self.propensity = sem, propensity

    def rows(self, text: np.ndarray) -> np.ndarray:
        return np.where(text < 6, text, -1)

    def candidates(self, text: np.ndarray) -> Candidates:
        row = (text[:, None] + np.arange(1, 4)) % 6
        shape = (len(text), 1)
        return Candidates(row, np.tile(np.array(self.sem, dtype=np.float32), shape),
                          np.log(np.tile(np.array(self.propensity, dtype=np.float32), shape)), text < 6)


@pytest.fixture
def drawn(examples_of, context_of):
    """Rows that the positives of sentence 0 came from, over many draws."""

    def draw(part: PropensityPositives, table: Table, times: int = 4000) -> np.ndarray:
        dataset: Examples = examples_of(anchor=TOKENS)
        batch = dataset.take(np.zeros(times, dtype=np.int64))
        context = replace(context_of(dataset), companions={"propensity": table})
        views = part(batch, context)
        assert views["anchor"].column is batch.columns["anchor"]
        rows = views["positive"].ids - 50
        # tokens, hash and id belong to one sentence
        assert np.array_equal(views["positive"].column.text, rows)
        assert np.array_equal(views["positive"].column.flat.reshape(-1, 3)[:, 1], 10 + rows)
        return rows

    return draw


def test_draws_by_the_formula(drawn):
    part = PropensityPositives(temperature=0.2, twin_share=0.0, clip=4.0)
    rows = drawn(part, Table(sem=[0.9, 0.6, 0.4], propensity=[0.8, 0.1, 0.1]), times=40_000)
    weight = [math.exp(0.9 / 0.2) / 0.8, math.exp(0.6 / 0.2) * 4.0]  # the second is clipped, the third too far
    assert set(rows.tolist()) == {1, 2}
    assert (rows == 1).mean() == pytest.approx(weight[0] / sum(weight), abs=0.01)


def test_a_clip_of_one_does_not_look_at_the_surface():
    candidates = Table(sem=[0.9, 0.6, 0.7], propensity=[0.8, 0.1, 0.001]).candidates(np.arange(2))
    logits = PropensityPositives(temperature=0.2, clip=1.0).logits(candidates, 0.5)
    np.testing.assert_allclose(logits, np.tile(np.float32([0.9, 0.6, 0.7]) / 0.2, (2, 1)), rtol=1e-6)


def test_logits_by_hand():
    part = PropensityPositives(temperature=0.5, clip=10.0)
    found = Candidates(np.zeros((2, 2), dtype=np.int64), np.array([[0.5, 0.4], [0.9, 0.9]], dtype=np.float32),
                       np.log(np.array([[0.5, 0.5], [0.01, 1.0]], dtype=np.float32)), np.array([True, False]))
    logits = part.logits(found, 0.5)
    np.testing.assert_allclose(logits[0], [1.0 + math.log(2), -math.inf], rtol=1e-6)
    assert np.isneginf(logits[1]).all()


def test_a_share_keeps_its_twin(drawn):
    table = Table(sem=[0.9, 0.6, 0.4], propensity=[0.5, 0.5, 0.5])
    assert (drawn(PropensityPositives(twin_share=0.3), table, 20_000) == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert (drawn(PropensityPositives(twin_share=1.0), table) == 0).all()


def test_the_twin_where_nothing_qualifies(drawn):
    assert (drawn(PropensityPositives(twin_share=0.0), Table([0.4, 0.1, 0.0], [0.5] * 3)) == 0).all()


def test_same_generator_same_draw(drawn):
    table = Table(sem=[0.9, 0.8, 0.7], propensity=[0.5, 0.5, 0.5])
    one, other = (drawn(PropensityPositives(), table) for _ in range(2))
    assert np.array_equal(one, other)
    assert len(set(one.tolist())) == 4


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"twin_share": 1.5}, {"twin_share": -0.1}, {"clip": 0.5}])
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        PropensityPositives(**bad)


def test_says_that_the_companion_is_missing(examples_of, context_of):
    dataset = examples_of(anchor=TOKENS)
    with pytest.raises(RecipeError, match='needs a companion "propensity"'):
        PropensityPositives()(dataset, context_of(dataset))


def test_is_a_part():
    assert PARTS["propensity_positives"] is PropensityPositives
    assert PropensityPositives().needs == {"companion:propensity"}
