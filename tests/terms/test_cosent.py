"""cosent against a loop over pairs of pairs, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.errors import DataError
from sentemb.terms.cosent import CoSENT


def loop_reference(sim, score, temperature):
    n = len(score)
    total = 1.0
    for i in range(n):
        for k in range(n):
            if score[i] > score[k]:
                total += math.exp((float(sim[k, k]) - float(sim[i, i])) / temperature)
    return math.log(total)


SCORES = torch.tensor([0.2, 0.9, 0.2, 0.5, 1.0])


def test_equals_the_loop(table_of, batch_of, random_sim):
    sim = random_sim(5, 7)
    loss = CoSENT(temperature=0.3)(table_of(sim), batch_of(5, score=SCORES))
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), SCORES, 0.3), rel=1e-12)


def test_hand_worked_two_by_two(table_of, batch_of):
    # only pair 1 outranks pair 0: log(1 + e^((1 - 0.6)/0.5)) = log(1 + e^0.8) = 1.171101
    table = table_of(torch.tensor([[1.0, 0.0], [0.5, 0.6]]))
    loss = CoSENT(temperature=0.5)(table, batch_of(score=torch.tensor([1.0, 4.0])))
    assert loss.item() == pytest.approx(1.171101, abs=1e-6)


def test_only_the_order_of_scores_matters(table_of, batch_of, random_sim):
    table = table_of(random_sim(5, 5))
    first = CoSENT()(table, batch_of(5, score=SCORES))
    second = CoSENT()(table, batch_of(5, score=SCORES.exp() * 100))
    assert torch.equal(first, second)


def test_order_of_examples_does_not_matter(table_of, batch_of, random_sim):
    sim, order = random_sim(5, 5).detach(), [4, 2, 0, 1, 3]
    before = CoSENT()(table_of(sim), batch_of(5, score=SCORES))
    after = CoSENT()(table_of(sim[order][:, order]), batch_of(5, score=SCORES[order]))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(table_of, batch_of, random_sim):
    term = CoSENT(temperature=0.2)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s), batch_of(5, score=SCORES)), (random_sim(5, 5),))


@pytest.mark.parametrize("n", [1, 4])
def test_equal_scores_give_zero_and_no_gradient(table_of, batch_of, random_sim, n):
    sim = random_sim(n, n)
    loss = CoSENT()(table_of(sim), batch_of(n, score=torch.ones(n)))
    loss.backward()
    assert loss.item() == 0.0
    assert (sim.grad == 0).all()


def test_bfloat16_table_is_scored_in_float32(table_of, batch_of, random_sim):
    sim = random_sim(5, 5).detach().bfloat16()
    loss = CoSENT()(table_of(sim, log_weight=torch.zeros(5, 5)), batch_of(5, score=SCORES))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loop_reference(sim.double(), SCORES, 0.05), rel=1e-5)


def test_data_without_scores_are_named(table_of, batch_of):
    with pytest.raises(DataError, match="cosent needs graded scores; add a score column"):
        CoSENT()(table_of(torch.eye(2)), batch_of())


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="greater than or equal to"):
        CoSENT(temperature=0.0)
