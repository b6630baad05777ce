"""sigmoid_contrast against a double loop, by hand, and with label texts that recur."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.edits import SameLabel
from sentemb.maths.table import score_table
from sentemb.terms import SigmoidContrast


def loop_reference(sim, positive, log_weight, temperature, bias):
    losses = []
    for i in range(len(sim)):
        for j in range(sim.shape[1]):
            if math.isfinite(log_weight[i, j]):
                logit = float(sim[i, j]) / temperature + float(log_weight[i, j]) + bias
                losses.append(math.log(1 + math.exp(-logit if positive[i, j] else logit)))
    return sum(losses) / len(losses)


@pytest.fixture
def case(random_sim):
    positive = torch.eye(4, 6, dtype=torch.bool)
    positive[0, 5] = positive[1, 4] = True
    positive[3] = False  # a row without a positive
    log_weight = random_sim(4, 6, seed=1).detach()
    log_weight[2, 3] = log_weight[1, 4] = -math.inf
    return random_sim(4, 6), positive, log_weight


@pytest.mark.parametrize("learn", [False, True])
def test_equals_the_loop(case, table_of, batch_of, learn):
    term = SigmoidContrast(temperature=0.3, bias=-2.0, learn=learn).double()
    loss = term(table_of(*case), batch_of(4))
    assert loss.item() == pytest.approx(loop_reference(case[0].detach(), *case[1:], 0.3, -2.0), rel=1e-6)


def test_hand_worked(table_of, batch_of):
    # logits 1 - 1 = 0 and 0 - 1: (log 2 + log(1 + e^-1)) / 2
    table = table_of(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    loss = SigmoidContrast(temperature=1.0, bias=-1.0)(table, batch_of(1))
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(-1))) / 2, rel=1e-12)


def test_a_label_text_that_recurs_is_a_positive():
    texts, labels = torch.eye(3), torch.tensor([0, 1, 0])
    names = torch.eye(3)[[0, 1, 0]]
    table, batch = score_table(texts, names, labels=labels)
    assert SameLabel()(table, batch).positive.int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_gradcheck_permutation_and_bfloat16(case, table_of, batch_of):
    sim, positive, log_weight = case
    term = SigmoidContrast(bias=-1.0, temperature=0.5)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s, positive, log_weight), batch_of(4)), (sim,))
    rows, columns = [2, 0, 3, 1], [5, 2, 0, 4, 1, 3]
    turned = [tensor[rows][:, columns] for tensor in case]
    assert term(table_of(*turned), batch_of(4)).item() == pytest.approx(term(table_of(*case), batch_of(4)).item())
    half = table_of(sim.detach().bfloat16(), positive, torch.zeros(4, 6))
    assert term(half, batch_of(4)).dtype == torch.float32


def test_temperature_and_bias_are_learned_where_asked(case, table_of, batch_of):
    assert not list(SigmoidContrast().parameters())
    term = SigmoidContrast(learn=True)
    term(table_of(case[0].detach().float(), *case[1:]), batch_of(4)).backward()
    assert all(float(parameter.grad.abs()) > 0 for parameter in term.parameters())
    assert len(list(term.parameters())) == 2


def test_large_logits_are_finite_and_bad_temperatures_refused(table_of, batch_of):
    loss = SigmoidContrast(temperature=1e-4)(table_of(torch.tensor([[-1.0, 1.0]])), batch_of(1))
    assert torch.isfinite(loss)
    with pytest.raises(ValueError, match=r"starts at 0.01 or above"):
        SigmoidContrast(temperature=0.001, learn=True)
    with pytest.raises(ValueError, match="temperature"):
        SigmoidContrast(temperature=0)
