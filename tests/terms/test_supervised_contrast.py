"""supervised_contrast against a loop over pairs, by hand, and at its edges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sentemb.errors import NumericError
from sentemb.terms.info_nce import InfoNCE
from sentemb.terms.supervised_contrast import SupervisedContrast

INF = float("inf")


def loop_reference(sim, positive, log_weight, temperature):
    """-1/n Σ_i 1/|P(i)| Σ_p log( exp ℓ_ip / Σ_j exp ℓ_ij )"""
    n, m = sim.shape
    total = 0.0
    for i in range(n):
        logits = [float(sim[i, j]) / temperature + float(log_weight[i, j]) for j in range(m)]
        below = sum(math.exp(value) for value in logits)
        positives = [j for j in range(m) if positive[i, j] and logits[j] > -INF]
        total -= sum(math.log(math.exp(logits[j]) / below) for j in positives) / len(positives)
    return total / n


@pytest.fixture
def case(table_of, random_sim):
    """4 anchors, 6 candidates, classes a b a c / a b a c b d, one positive and one negative removed."""
    anchor, candidate = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 1, 0, 2, 1, 3])
    positive = anchor[:, None] == candidate[None, :]
    log_weight = random_sim(4, 6, seed=1).detach()
    log_weight[0, 2] = log_weight[3, 5] = -INF
    return random_sim(4, 6), positive, log_weight


def test_equals_the_loop(case, table_of, batch_of):
    sim, positive, log_weight = case
    loss = SupervisedContrast(temperature=0.3)(table_of(sim, positive, log_weight), batch_of(4))
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), positive, log_weight, 0.3), rel=1e-12)


def test_hand_worked_two_by_two(table_of, batch_of):
    # τ = 1, row 0 has both as positives: log(e + 1) - (1 + 0)/2 = 0.813262; row 1: log(1 + e^0.5) - 0.5 = 0.474077
    table = table_of(torch.tensor([[1.0, 0.0], [0.0, 0.5]]), torch.tensor([[True, True], [False, True]]))
    loss = SupervisedContrast(temperature=1.0)(table, batch_of())
    assert loss.item() == pytest.approx((0.813262 + 0.474077) / 2, abs=1e-6)


def test_one_positive_is_info_nce_and_several_are_not(table_of, batch_of, random_sim):
    sim = random_sim(4, 6)
    single = table_of(sim)
    supervised, contrast = SupervisedContrast(temperature=0.1), InfoNCE(temperature=0.1)
    assert supervised(single, batch_of(4)).item() == pytest.approx(contrast(single, batch_of(4)).item(), rel=1e-12)
    positive = single.positive.clone()
    positive[0, 5] = True
    several = replace(single, positive=positive)
    # Jensen: the mean of logarithms lies below the logarithm of the sum
    assert supervised(several, batch_of(4)).item() > contrast(several, batch_of(4)).item()


def test_order_of_examples_and_candidates_does_not_matter(case, table_of, batch_of):
    sim, positive, log_weight = (tensor.detach() for tensor in case)
    rows, columns = [2, 0, 3, 1], [5, 2, 0, 4, 1, 3]
    term = SupervisedContrast()
    before = term(table_of(sim, positive, log_weight), batch_of(4))
    shuffled = [tensor[rows][:, columns] for tensor in (sim, positive, log_weight)]
    assert term(table_of(*shuffled), batch_of(4)).item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(case, table_of, batch_of):
    sim, positive, log_weight = case
    term = SupervisedContrast(temperature=0.4)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s, positive, log_weight), batch_of(4)), (sim,))


def test_one_example_alone_gives_zero(table_of, batch_of):
    assert SupervisedContrast()(table_of(torch.tensor([[0.3]])), batch_of(1)).item() == 0.0


def test_anchor_without_a_positive_is_infinite_and_diagnosed(table_of, batch_of, random_sim):
    table = table_of(random_sim(3, 3), torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 1]]).bool())
    term = SupervisedContrast()
    loss = term(table, batch_of(3))
    assert loss.item() == INF
    with pytest.raises(NumericError, match="supervised_contrast, step 7: every positive of example 101"):
        term.diagnose(table, batch_of(3))


def test_bfloat16_table_is_scored_in_float32(case, table_of, batch_of):
    sim, positive, _ = case
    sim = sim.detach().bfloat16()
    loss = SupervisedContrast()(table_of(sim, positive, torch.zeros(4, 6)), batch_of(4))
    assert loss.dtype == torch.float32
    exact = loop_reference(sim.double(), positive, torch.zeros(4, 6), 0.05)
    assert loss.item() == pytest.approx(exact, rel=1e-5)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="greater than or equal to"):
        SupervisedContrast(temperature=0.0)
