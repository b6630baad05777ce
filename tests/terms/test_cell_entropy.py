"""cell_entropy against a loop over cells."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sentemb.errors import NumericError, RecipeError
from sentemb.terms import CellEntropy

INF = math.inf


def loop(sim, log_weight, positive, temperature):
    n, m = sim.shape
    total = 0.0
    for i in range(n):
        cells = [math.exp(sim[i, j].item() / temperature + log_weight[i, j].item()) for j in range(m)]
        for j in range(m):
            p = cells[j] / sum(cells)
            if p > 0:
                total -= math.log(p) if positive[i, j] else math.log(1 - p)
    return total / (n * m)


def test_equals_the_loop(table_of, batch_of, random_sim):
    sim = random_sim(4, 6)
    weight = torch.rand(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[0, 2] = weight[3, 5] = -INF
    positive = torch.eye(4, 6, dtype=torch.bool)
    positive[1, 4] = True
    table = table_of(sim, positive=positive, log_weight=weight)
    expected = loop(sim, weight, positive, 0.2)
    assert CellEntropy(temperature=0.2)(table, batch_of(4)).item() == pytest.approx(expected, rel=1e-12)


def test_by_hand(table_of, batch_of):
    sim = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float64)
    loss = CellEntropy(temperature=1.0)(table_of(sim), batch_of(2))
    assert loss.item() == pytest.approx((2 * math.log(4 / 3) + 2 * math.log(2)) / 4)


def test_gradcheck(table_of, batch_of, random_sim):
    weight = torch.zeros(4, 6, dtype=torch.float64)
    weight[0, 2] = -INF
    term, batch = CellEntropy(temperature=0.3), batch_of(4)
    assert torch.autograd.gradcheck(lambda sim: term(table_of(sim, log_weight=weight), batch), (random_sim(4, 6),))


def test_a_negative_that_takes_the_whole_softmax_is_still_pushed(table_of, batch_of):
    sim = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]], requires_grad=True)  # p of row 0 rounds to 0 and 1 in float32
    loss = CellEntropy(temperature=0.05)(table_of(sim), batch_of(2))
    loss.backward()
    assert loss.item() == pytest.approx(2 * 40 / 4, rel=1e-5)
    assert sim.grad[0].tolist() == pytest.approx([-10.0, 10.0], rel=1e-5)
    assert sim.grad[1].abs().max() < 1e-6


def test_order_of_examples_does_not_matter(table_of, batch_of, random_sim):
    sim, order = random_sim(5, 5), [3, 0, 4, 1, 2]
    before = CellEntropy()(table_of(sim), batch_of(5))
    assert CellEntropy()(table_of(sim[order][:, order]), batch_of(5)).item() == pytest.approx(before.item(), rel=1e-12)


def test_edges(table_of, batch_of, random_sim):
    assert CellEntropy()(table_of(torch.ones(1, 1)), batch_of(1)).item() == 0
    sim = random_sim(3, 3)
    alone = torch.full((3, 3), -INF, dtype=torch.float64).fill_diagonal_(0.0)
    loss = CellEntropy()(table_of(sim, log_weight=alone), batch_of(3))
    loss.backward()
    assert loss.item() == 0
    assert not sim.grad.any()
    half = CellEntropy()(table_of(sim.detach().bfloat16(), log_weight=torch.zeros(3, 3)), batch_of(3))
    assert half.dtype == torch.float32


def test_an_anchor_without_a_positive_is_explained(table_of, batch_of, random_sim):
    positive = torch.eye(3, dtype=torch.bool)
    positive[1] = False
    table = table_of(random_sim(3, 3), positive=positive)
    assert CellEntropy()(table, batch_of(3)).item() == INF
    with pytest.raises(NumericError, match="cell_entropy"):
        CellEntropy().diagnose(table, batch_of(3))


def test_refuses_shares_and_a_temperature_of_zero(table_of, batch_of):
    table = table_of(torch.eye(2))
    with pytest.raises(RecipeError, match="does not divide attraction"):
        CellEntropy()(replace(table, share=torch.eye(2)), batch_of(2))
    with pytest.raises(ValueError, match="temperature"):
        CellEntropy(temperature=0.0)
