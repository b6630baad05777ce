"""supervised_contrast against a loop over pairs, by hand, and at its edges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sentemb.edits import Attraction
from sentemb.errors import NumericError
from sentemb.terms.decoupled import Decoupled
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


# ------------------------------------------------------------------------------------------------- shares, focus
def shared_reference(sim, positive, share, temperature, focus):
    """-1/n Σ_i Σ_p share_ip (1 - p_ip)^focus log p_ip."""
    total = 0.0
    for i in range(len(sim)):
        exponentials = [math.exp(x / temperature) for x in sim[i].tolist()]
        weights = [float(share[i, j]) if positive[i, j] else 0.0 for j in range(sim.shape[1])]
        for j, w in enumerate(weights):
            p = exponentials[j] / sum(exponentials)
            total -= w / sum(weights) * (1 - p) ** focus * math.log(p)
    return total / len(sim)


@pytest.mark.parametrize("focus", [0.0, 1.0, -1.0, 0.5])
def test_equals_the_loop_with_shares_and_focus(random_sim, table_of, batch_of, focus):
    sim = random_sim(4, 6)
    positive = torch.eye(4, 6, dtype=torch.bool)
    positive[0, 5] = positive[2, 0] = True
    share = torch.rand(4, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    table = replace(table_of(sim, positive), share=share)
    loss = SupervisedContrast(temperature=0.3, focus=focus)(table, batch_of(4))
    assert loss.item() == pytest.approx(shared_reference(sim.detach(), positive, share, 0.3, focus), rel=1e-10)


def test_focus_of_minus_one_has_the_gradient_of_decoupled(random_sim, table_of, batch_of):
    sim = random_sim(5, 7)
    one = torch.autograd.grad(SupervisedContrast(temperature=0.2, focus=-1.0)(table_of(sim), batch_of(5)), sim)[0]
    other = torch.autograd.grad(Decoupled(temperature=0.2)(table_of(sim), batch_of(5)), sim)[0]
    torch.testing.assert_close(one, other)


def test_focus_of_minus_one_keeps_its_gradient_where_float32_rounds_p_to_one(table_of, batch_of):
    for temperature in (0.05, 0.01):  # 1 - p = e^-20 and e^-100
        sim = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
        loss = SupervisedContrast(temperature=temperature, focus=-1.0)(table_of(sim), batch_of(2))
        loss.backward()
        pull = 1 / temperature / 2
        assert loss.item() == pytest.approx(1.0, rel=1e-4)  # -log p / (1 - p)
        assert sim.grad.flatten().tolist() == pytest.approx([-pull, pull, pull, -pull], rel=1e-4)


def test_identity_8_how_the_losses_weigh_a_rows_positives(random_sim, table_of, batch_of):
    """By exp(κ s): κ is 0, +1/τ of info_nce, -2t of attraction(t)."""
    positive = torch.zeros(1, 6, dtype=torch.bool)
    positive[0, :3] = True
    for part, edit, kappa in (
        (SupervisedContrast(temperature=0.5), None, 0.0), (InfoNCE(temperature=0.5), None, 2.0),
        (Decoupled(temperature=0.5), Attraction(sharpness=1.3), -2.6),
    ):
        sim = random_sim(1, 6)
        table, batch = table_of(sim, positive), batch_of(1)
        part(table if edit is None else edit(table, batch), batch).backward()
        pushed = ~positive if isinstance(part, Decoupled) else torch.ones_like(positive)
        push = torch.softmax((sim.detach() / 0.5).masked_fill(~pushed, -torch.inf), dim=1)
        weight = (push - 0.5 * sim.grad)[positive]
        torch.testing.assert_close(weight, torch.softmax(kappa * sim.detach()[positive], dim=0))


def test_a_row_without_live_pairs_is_infinite(random_sim, table_of, batch_of):
    weight = torch.zeros(3, 4, dtype=torch.float64)
    weight[1] = -math.inf
    for part in (SupervisedContrast(), SupervisedContrast(focus=1.0), InfoNCE()):
        assert part(replace(table_of(random_sim(3, 4)), log_weight=weight), batch_of(3)).item() == math.inf


def test_one_example_alone_is_zero_whatever_the_focus(table_of, batch_of):
    for focus in (-1.0, 1.0):
        sim = torch.tensor([[0.3]], requires_grad=True)
        loss = SupervisedContrast(focus=focus)(table_of(sim), batch_of(1))
        loss.backward()
        assert (loss.item(), sim.grad.item()) == (0.0, 0.0)


@pytest.mark.parametrize("focus", [0.0, 1.0])
def test_weights_of_rows(table_of, batch_of, random_sim, focus):
    sim, weight = random_sim(3, 5), torch.tensor([1.0, 0.0, 3.0])
    term = SupervisedContrast(focus=focus, row_weight="weight")
    rows = [term(table_of(sim), batch_of(3, weight=torch.eye(3)[i])).item() for i in range(3)]
    loss = term(table_of(sim), batch_of(3, weight=weight)).item()
    assert loss == pytest.approx((rows[0] + 3 * rows[2]) / 4, rel=1e-10)
    plain = SupervisedContrast(focus=focus)(table_of(sim), batch_of(3)).item()
    assert sum(rows) / 3 == pytest.approx(plain, rel=1e-10)
