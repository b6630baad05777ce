"""attraction against a loop, its limits, and CACR."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sentemb.edits import Attraction
from sentemb.maths.softmax import positive_share
from sentemb.terms import Decoupled


@pytest.fixture
def table(make_table):
    """Row 0 has three positives, of which one is removed; row 2 has none left."""
    made = make_table(4)
    positive, weight = made.positive.clone(), made.log_weight.clone()
    positive[0, 1] = positive[0, 2] = positive[1, 3] = True
    weight[0, 2] = weight[2, 2] = -math.inf
    return replace(made, positive=positive, log_weight=weight)


def test_equals_the_loop(table, make_batch):
    share = Attraction(sharpness=1.5)(table, make_batch()).share
    for i in range(4):
        live = [j for j in range(4) if table.positive[i, j] and table.log_weight[i, j] == 0]
        weight = {j: math.exp(1.5 * (2 - 2 * float(table.sim[i, j]))) for j in live}
        expected = [weight.get(j, 0.0) / sum(weight.values()) if live else 0.0 for j in range(4)]
        assert share[i].tolist() == pytest.approx(expected, rel=1e-12)


def test_two_positives_by_hand(make_table, make_batch):
    sim = torch.tensor([[1.0, 0.5]] * 2, dtype=torch.float64)  # squared distances 0 and 1
    table = replace(make_table(2), sim=sim, positive=torch.ones(2, 2, dtype=torch.bool))
    e = math.e
    assert Attraction(sharpness=1.0)(table, make_batch()).share[0].tolist() == pytest.approx([1 / (1 + e), e / (1 + e)])


def test_limits(table, make_batch):
    flat = Attraction(sharpness=0.0)(table, make_batch())
    torch.testing.assert_close(flat.share, positive_share(table))
    sharp = Attraction(sharpness=1e4)(table, make_batch()).share
    farthest = table.sim.masked_fill(~table.positive | (table.log_weight < 0), math.inf).argmin(dim=1)
    assert all(sharp[i, farthest[i]].item() == pytest.approx(1.0) for i in (0, 1, 3))


def test_one_positive_leaves_the_loss_as_it_is(make_table, make_batch):
    table = make_table(5)
    edited = Attraction(sharpness=3.0)(table, make_batch())
    torch.testing.assert_close(Decoupled()(edited, make_batch()), Decoupled()(table, make_batch()))


def test_shares_multiply_and_carry_no_gradient(table, make_batch):
    sim = table.sim.clone().requires_grad_()
    once = Attraction(sharpness=2.0)(replace(table, sim=sim), make_batch())
    assert not once.share.requires_grad
    twice = Attraction(sharpness=1.0)(Attraction(sharpness=1.0)(table, make_batch()), make_batch())
    torch.testing.assert_close(twice.share, once.share)


def test_follows_a_permutation_of_the_examples(make_table, make_batch):
    table = replace(make_table(4), positive=torch.ones(4, 4, dtype=torch.bool))
    order = torch.tensor([2, 0, 3, 1])
    moved = replace(table, sim=table.sim[order][:, order])
    torch.testing.assert_close(
        Attraction()(moved, make_batch()).share, Attraction()(table, make_batch()).share[order][:, order]
    )


def test_half_precision_and_one_example(make_table, make_batch):
    assert Attraction()(make_table(1, dtype=torch.bfloat16), make_batch()).share.tolist() == [[1.0]]


def test_refuses_a_negative_sharpness():
    with pytest.raises(ValueError, match="sharpness"):
        Attraction(sharpness=-1.0)
