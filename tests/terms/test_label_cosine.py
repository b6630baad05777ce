"""label_cosine against a double loop, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.terms import LabelCosine


def loop_reference(sim, positive, log_weight):
    halves = {True: [], False: []}
    for i in range(len(sim)):
        for j in range(sim.shape[1]):
            if math.isfinite(log_weight[i, j]):
                target = 1.0 if positive[i, j] else 0.0
                halves[bool(positive[i, j])].append((float(sim[i, j]) - target) ** 2)
    return sum(sum(half) / len(half) for half in halves.values() if half) / 2


@pytest.fixture
def case(random_sim):
    positive = torch.eye(4, 6, dtype=torch.bool)
    positive[0, 5] = positive[1, 4] = positive[2, 0] = True
    log_weight = torch.zeros(4, 6)
    log_weight[2, 3] = log_weight[1, 4] = -math.inf
    return random_sim(4, 6), positive, log_weight


def test_equals_the_loop(case, table_of, batch_of):
    loss = LabelCosine()(table_of(*case), batch_of(4))
    assert loss.item() == pytest.approx(loop_reference(case[0].detach(), *case[1:]), rel=1e-12)


def test_hand_worked_two_by_two(table_of, batch_of):
    # positives 0.8 and 0.6: (0.04 + 0.16) / 2; others 0.2 and 0.4: (0.04 + 0.16) / 2
    table = table_of(torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64))
    assert LabelCosine()(table, batch_of()).item() == pytest.approx(0.1)


def test_one_class_alone_has_no_second_half(table_of, batch_of, random_sim):
    sim = random_sim(3, 3)
    loss = LabelCosine()(table_of(sim, torch.ones(3, 3, dtype=torch.bool)), batch_of(3))
    assert loss.item() == pytest.approx((1 - sim.detach()).square().mean().item() / 2)


def test_gradcheck_permutation_one_example_and_bfloat16(case, table_of, batch_of, random_sim):
    sim, positive, log_weight = case
    term = LabelCosine()
    assert torch.autograd.gradcheck(lambda s: term(table_of(s, positive, log_weight), batch_of(4)), (sim,))
    rows, columns = [2, 0, 3, 1], [5, 2, 0, 4, 1, 3]
    turned = [tensor[rows][:, columns] for tensor in case]
    assert term(table_of(*turned), batch_of(4)).item() == pytest.approx(term(table_of(*case), batch_of(4)).item())
    alone = random_sim(1, 1).detach()
    assert term(table_of(alone), batch_of(1)).item() == pytest.approx((1 - float(alone)) ** 2 / 2)
    assert term(table_of(alone.bfloat16(), log_weight=torch.zeros(1, 1)), batch_of(1)).dtype == torch.float32
