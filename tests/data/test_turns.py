"""Schedules of a mixture: how often and in which order sources have their turn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentemb.data.turns import Floor, Power, RoundRobin, Supply
from sentemb.errors import DataError, PartError


def supply(batches: list[int], weight: list[float] | None = None, rows: list[int] | None = None) -> Supply:
    return Supply(
        names=tuple(f"s{i}" for i in range(len(batches))), rows=np.array(rows or [8 * count for count in batches]),
        batches=np.array(batches), weight=np.array(weight or [1.0] * len(batches)),
    )


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 3))
def test_floor_gives_every_batch_once(batches, seed):
    turns = Floor().order(supply(batches), draw(seed)).tolist()
    assert Counter(turns) == Counter(dict(enumerate(batches)))


def test_floor_shuffles_and_rounds_weights_down():
    given_ = supply([10, 10, 3], weight=[0.5, 2.0, 0.67])
    turns = Floor().order(given_, draw()).tolist()
    assert Counter(turns) == {0: 5, 1: 20, 2: 2}
    assert turns != sorted(turns)
    assert turns == Floor().order(given_, draw()).tolist()
    assert turns != Floor().order(given_, draw(1)).tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_power_draws_by_a_power_of_the_rows(alpha):
    given_ = supply([4000, 1000], weight=[1.0, 1.5], rows=[400, 100])
    turns = Power(alpha=alpha).order(given_, draw())
    share = 400**alpha / (400**alpha + 1.5 * 100**alpha)
    assert len(turns) == 5000
    assert (turns == 0).mean() == pytest.approx(share, abs=0.03)  # four standard deviations


def test_round_robin_goes_round_until_the_first_is_empty():
    assert RoundRobin().order(supply([9, 2, 5]), draw()).tolist() == [0, 1, 2, 0, 1, 2]
    # a weight of 2: twice as often, equally spaced
    assert RoundRobin().order(supply([9, 3], weight=[2, 1]), draw()).tolist() == [0, 1, 0, 0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("turns", [Floor(), RoundRobin()])
def test_a_source_that_never_has_its_turn_is_refused(turns):
    with pytest.raises(DataError, match=r'source "s1": 8 rows of weight 0\.1 make no batch in an epoch'):
        turns.order(supply([2, 1], weight=[1, 0.1]), draw())


def test_alpha_must_not_be_negative():
    with pytest.raises(PartError, match=r"alpha = -1.0: must be greater than or equal to 0"):
        Power(alpha=-1.0)
