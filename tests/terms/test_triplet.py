"""triplet against a loop over triplets, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.errors import NumericError
from sentemb.terms.triplet import Triplet

INF = float("inf")


def loop_reference(sim, positive, log_weight, margin):
    n, m = sim.shape
    above = below = 0.0
    for i in range(n):
        worst = min(float(sim[i, p]) for p in range(m) if positive[i, p] and log_weight[i, p] > -INF)
        for j in range(m):
            if not positive[i, j]:
                weight = math.exp(float(log_weight[i, j]))
                above += weight * max(0.0, margin + float(sim[i, j]) - worst)
                below += weight
    return above / below


@pytest.fixture
def case(random_sim):
    positive = torch.eye(4, 6, dtype=torch.bool)
    positive[0, 5] = positive[1, 4] = True
    log_weight = random_sim(4, 6, seed=1).detach()
    log_weight[2, 3] = log_weight[1, 4] = -INF
    return random_sim(4, 6), positive, log_weight


def test_equals_the_loop(case, table_of, batch_of):
    sim, positive, log_weight = case
    loss = Triplet(margin=0.3)(table_of(sim, positive, log_weight), batch_of(4))
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), positive, log_weight, 0.3), rel=1e-12)


def test_hand_worked_two_by_two(table_of, batch_of):
    # row 0: 0.2 + 0 - 1 < 0; row 1: 0.2 + 0.5 - 0.6 = 0.1; the mean over two triplets
    table = table_of(torch.tensor([[1.0, 0.0], [0.5, 0.6]]))
    assert Triplet(margin=0.2)(table, batch_of()).item() == pytest.approx(0.05)


def test_negatives_beyond_the_margin_get_no_gradient(table_of, batch_of):
    sim = torch.tensor([[1.0, 0.0], [0.5, 0.6]], requires_grad=True)
    Triplet(margin=0.2)(table_of(sim), batch_of()).backward()
    assert torch.equal(sim.grad, torch.tensor([[0.0, 0.0], [0.5, -0.5]]))


def test_order_of_examples_and_candidates_does_not_matter(case, table_of, batch_of):
    sim, positive, log_weight = (tensor.detach() for tensor in case)
    rows, columns = [2, 0, 3, 1], [5, 2, 0, 4, 1, 3]
    before = Triplet()(table_of(sim, positive, log_weight), batch_of(4))
    shuffled = [tensor[rows][:, columns] for tensor in (sim, positive, log_weight)]
    assert Triplet()(table_of(*shuffled), batch_of(4)).item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(case, table_of, batch_of):
    sim, positive, log_weight = case
    term = Triplet(margin=0.4)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s, positive, log_weight), batch_of(4)), (sim,))


def test_one_example_alone_gives_zero_and_no_gradient(table_of, batch_of):
    sim = torch.tensor([[0.3]], requires_grad=True)
    loss = Triplet()(table_of(sim), batch_of(1))
    loss.backward()
    assert loss.item() == 0.0
    assert sim.grad.item() == 0.0


def test_anchor_without_a_positive_is_infinite_and_diagnosed(table_of, batch_of, random_sim):
    log_weight = torch.zeros(3, 3, dtype=torch.float64)
    log_weight[1] = -INF
    table = table_of(random_sim(3, 3), log_weight=log_weight)
    assert Triplet()(table, batch_of(3)).item() == INF
    with pytest.raises(NumericError, match="triplet, step 7: every positive of example 101"):
        Triplet().diagnose(table, batch_of(3))


def test_bfloat16_table_is_scored_in_float32(case, table_of, batch_of):
    sim, positive, _ = case
    sim = sim.detach().bfloat16()
    loss = Triplet()(table_of(sim, positive, torch.zeros(4, 6)), batch_of(4))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loop_reference(sim.double(), positive, torch.zeros(4, 6), 0.2), rel=1e-5)


def test_margin_must_be_positive():
    with pytest.raises(ValueError, match="greater than 0"):
        Triplet(margin=0.0)


# ------------------------------------------------------------------------------------------------- the hardest alone
def hardest_by_loop(sim, positive, log_weight, margin):
    n, m = sim.shape
    total = 0.0
    for i in range(n):
        live = [j for j in range(m) if log_weight[i, j] > -INF]
        worst = min(float(sim[i, p]) for p in live if positive[i, p])
        hardest = max((float(sim[i, j]) for j in live if not positive[i, j]), default=-INF)
        total += max(0.0, margin + hardest - worst)
    return total / n


def test_hardest_equals_the_loop(case, table_of, batch_of):
    sim, positive, log_weight = case
    log_weight[3, :3] = log_weight[3, 4:] = -INF  # a row without a negative
    loss = Triplet(margin=0.3, negatives="hardest")(table_of(sim, positive, log_weight), batch_of(4))
    assert loss.item() == pytest.approx(hardest_by_loop(sim.detach(), positive, log_weight, 0.3), rel=1e-12)
    loss.backward()
    assert sim.grad.isfinite().all()


def test_hardest_by_hand(table_of, batch_of):
    # row 0: 0.2 + 0.9 - 1 = 0.1; row 1: 0.2 + 0.5 - 0.6 = 0.1; row 2: 0.2 - 0.5 - 0.4 < 0
    table = table_of(torch.tensor([[1.0, 0.0, 0.9], [0.5, 0.6, 0.1], [-0.6, -0.5, 0.4]]))
    assert Triplet(negatives="hardest")(table, batch_of(3)).item() == pytest.approx(0.2 / 3, rel=1e-6)


def test_hardest_of_one_negative_is_the_plain_triplet(table_of, batch_of):
    table = table_of(torch.tensor([[0.3, 0.4], [0.5, 0.6]]))
    plain, hardest = (Triplet(negatives=kind)(table, batch_of()).item() for kind in ("all", "hardest"))
    assert hardest == plain


def test_gradcheck_of_hardest(case, table_of, batch_of):
    sim, positive, log_weight = case
    term = Triplet(margin=0.4, negatives="hardest")
    assert torch.autograd.gradcheck(lambda s: term(table_of(s, positive, log_weight), batch_of(4)), (sim,))


def test_hardest_of_one_example_alone_is_zero(table_of, batch_of):
    sim = torch.tensor([[0.3]], requires_grad=True)
    loss = Triplet(negatives="hardest")(table_of(sim), batch_of(1))
    loss.backward()
    assert loss.item() == sim.grad.item() == 0.0


def test_other_negatives_are_refused():
    with pytest.raises(ValueError, match="'all' or 'hardest'"):
        Triplet(negatives="semi-hard")
