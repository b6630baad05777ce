"""margin: the positive's logit is lowered by what the data say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import permuted

from sentemb.edits import Margin
from sentemb.errors import RecipeError
from sentemb.maths.table import in_batch_table, score_table
from sentemb.terms import Decoupled, InfoNCE, SupervisedContrast

MARGINS = torch.tensor([0.1, 0.0, -0.2, 0.4], dtype=torch.float64)


def test_by_hand(make_table, make_batch):
    table = replace(make_table(2), scale=torch.tensor([1.0, 2.0], dtype=torch.float64))
    edited = Margin(temperature=0.5)(table, make_batch(margin=torch.tensor([0.1, -0.2], dtype=torch.float64)))
    assert edited.log_weight.flatten().tolist() == pytest.approx([-0.2, 0, 0, 0.2])
    assert torch.equal(edited.sim, table.sim)


def test_equals_the_loop_of_an_additive_margin_softmax(make_table, make_batch):
    table = make_table(4)
    expected = 0.0
    for i in range(4):
        own = (float(table.sim[i, i]) - float(MARGINS[i])) / 0.3
        others = sum(math.exp(float(table.sim[i, j]) / 0.3) for j in range(4) if j != i)
        expected -= math.log(math.exp(own) / (math.exp(own) + others)) / 4
    batch = make_batch(margin=MARGINS)
    edited = Margin(temperature=0.3)(table, batch)
    assert InfoNCE(temperature=0.3)(edited, batch).item() == pytest.approx(expected, rel=1e-12)
    assert SupervisedContrast(temperature=0.3)(edited, batch).item() == pytest.approx(expected, rel=1e-12)


def test_the_other_direction_has_the_margin_of_its_pair(make_table, make_batch):
    table, batch = make_table(4), make_batch(margin=MARGINS)
    total = 0.0
    for i in range(4):
        for sims in (table.sim[i], table.sim[:, i]):
            logits = [(float(s) - (float(MARGINS[i]) if j == i else 0.0)) / 0.3 for j, s in enumerate(sims)]
            total += math.log(sum(math.exp(logit - logits[i]) for logit in logits)) / 8
    edited = Margin(temperature=0.3)(table, batch)
    assert InfoNCE(temperature=0.3, directions="both")(edited, batch).item() == pytest.approx(total, rel=1e-12)


def test_no_margin_changes_nothing(make_table, make_batch):
    table = make_table(3)
    edited = Margin()(table, make_batch(margin=torch.zeros(3)))
    assert torch.equal(edited.log_weight, table.log_weight)


def test_every_positive_is_lowered_and_removed_ones_stay_removed(make_table, make_batch):
    table = make_table(2, label=[1, 1])
    positive = torch.ones(2, 2, dtype=torch.bool)
    log_weight = torch.tensor([[0.0, -math.inf], [0.0, 0.0]], dtype=torch.float64)
    table = replace(table, positive=positive, log_weight=log_weight)
    edited = Margin(temperature=0.1)(table, make_batch(margin=torch.tensor([0.1, 0.2])))
    assert edited.log_weight[0].tolist() == pytest.approx([-1, -math.inf])
    assert edited.log_weight[1].tolist() == pytest.approx([-2, -2])


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    anchor, positive = make_rows(4), make_rows(4, seed=1)
    order = torch.tensor([3, 1, 0, 2])
    one = Margin()(in_batch_table(anchor, positive), make_batch(margin=MARGINS))
    other = Margin()(
        in_batch_table(permuted(anchor, order), permuted(positive, order)), make_batch(margin=MARGINS[order])
    )
    torch.testing.assert_close(one.log_weight[order][:, order], other.log_weight)


def test_gradcheck_and_decoupleds_gradient_ignores_it(make_table, make_batch):
    sim, batch = make_table(4).sim.clone().requires_grad_(), make_batch(margin=MARGINS)

    def loss(s: torch.Tensor) -> torch.Tensor:
        return InfoNCE(temperature=0.5)(Margin(temperature=0.5)(replace(make_table(4), sim=s), batch), batch)

    assert torch.autograd.gradcheck(loss, (sim,))
    table = replace(make_table(4), sim=sim)
    with_margin, without = (
        torch.autograd.grad(Decoupled()(one, batch), sim)[0] for one in (Margin()(table, batch), table)
    )
    torch.testing.assert_close(with_margin, without)


def test_edges(make_table, make_batch):
    table = make_table(1, dtype=torch.bfloat16)
    edited = Margin()(table, make_batch(margin=torch.tensor([0.3])))
    assert InfoNCE()(edited, make_batch()).item() == pytest.approx(0.0, abs=1e-6)


def test_in_a_loop_of_ones_own():
    generator = torch.Generator().manual_seed(0)
    anchors, positives = (torch.randn(3, 4, generator=generator, requires_grad=True) for _ in range(2))
    table, batch = score_table(anchors, positives, margins=torch.tensor([0.1, 0.2, 0.3]))
    InfoNCE()(Margin()(table, batch), batch).backward()
    assert anchors.grad.abs().sum() > 0


def test_data_without_margins_are_told(make_table, make_batch):
    with pytest.raises(RecipeError, match="the data have no margin column"):
        Margin()(make_table(2), make_batch())


def test_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature"):
        Margin(temperature=0.0)
