"""soften: doubtful pairs share their attraction, others stay as they are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import permuted
from given_reference import GivenReference

from sentemb.companions.momentum import Momentum
from sentemb.edits import Soften
from sentemb.errors import RecipeError
from sentemb.maths.table import in_batch_table
from sentemb.terms import SupervisedContrast


def soften(table, judge, make_batch, **settings):
    edit = Soften(companion="judge", **settings)
    return edit(table, make_batch(companions={"judge": judge}))


@pytest.fixture
def cosine():
    """Row 0 agrees, row 1 prefers column 0, row 2 prefers columns 0 and 3, row 3 agrees."""
    return torch.tensor(
        [[0.9, 0.2, 0.1, 0.3], [0.8, 0.5, 0.1, 0.2], [0.6, 0.1, 0.4, 0.7], [0.0, 0.1, 0.2, 0.9]], dtype=torch.float64
    )


def targets(cosine, weight, temperature, removed=()):
    """Soft targets of every row, by plain numbers."""
    n = len(cosine)
    rows = []
    for i in range(n):
        live = [j for j in range(n) if (i, j) not in removed]
        preferred = [j for j in live if j != i and cosine[i, j] > cosine[i, i]]
        exponential = {j: math.exp(float(cosine[i, j]) / temperature) for j in [i, *preferred]}
        opinion = {j: value / sum(exponential.values()) for j, value in exponential.items()}
        rows.append([(1 - weight) * (j == i) + weight * opinion.get(j, 0.0) for j in range(n)])
    return rows


def test_equals_the_soft_cross_entropy_of_a_loop(cosine, make_table, make_batch):
    table = make_table(4)
    table = replace(table, log_weight=table.log_weight.index_put((torch.tensor(2), torch.tensor(3)), torch.tensor(
        -math.inf, dtype=torch.float64)))
    edited = soften(table, GivenReference(cosine), make_batch, weight=0.4, temperature=0.2)
    expected = targets(cosine, 0.4, 0.2, removed={(2, 3)})
    torch.testing.assert_close(edited.share, torch.tensor(expected, dtype=torch.float64))
    assert edited.positive.nonzero().tolist() == [[0, 0], [1, 0], [1, 1], [2, 0], [2, 2], [3, 3]]
    loss = 0.0
    for i in range(4):
        live = [j for j in range(4) if (i, j) != (2, 3)]
        total = sum(math.exp(float(table.sim[i, j]) / 0.3) for j in live)
        loss -= sum(expected[i][j] * math.log(math.exp(float(table.sim[i, j]) / 0.3) / total) for j in live) / 4
    assert SupervisedContrast(temperature=0.3)(edited, make_batch()).item() == pytest.approx(loss, rel=1e-12)


def test_two_by_two_by_hand(make_table, make_batch):
    # row 0: q = softmax(0.5, 0.5 + log 3) = (1/4, 3/4), half of it: (1/2 + 1/8, 3/8); row 1 agrees
    cosine = torch.tensor([[0.0, math.log(3.0)], [0.0, 1.0]])
    edited = soften(make_table(2), GivenReference(cosine), make_batch, weight=0.5, temperature=1.0)
    assert edited.share.flatten().tolist() == pytest.approx([0.625, 0.375, 0.0, 1.0])


def test_a_teacher_that_agrees_changes_no_loss(make_table, make_batch):
    table = make_table(4)
    edited = soften(table, GivenReference(torch.eye(4)), make_batch)
    assert torch.equal(edited.positive, table.positive)
    term = SupervisedContrast()
    assert term(edited, make_batch()).item() == term(table, make_batch()).item()


def test_the_shares_of_agreed_rows_stay_those_of_another_edit(cosine, make_table, make_batch):
    share = torch.zeros(4, 4, dtype=torch.float64)
    share[0, 0], share[0, 3] = 0.9, 0.1
    table = make_table(4)
    positive = table.positive.clone()
    positive[0, 3] = True
    edited = soften(replace(table, positive=positive, share=share), GivenReference(cosine), make_batch)
    assert edited.share[0].tolist() == pytest.approx([0.9, 0, 0, 0.1])


def test_what_the_teacher_does_not_know_is_not_judged(cosine, make_table, make_batch):
    is_known = torch.ones(4, 4, dtype=torch.bool)
    is_known[1, 1] = False  # the pair itself
    is_known[2] = False
    edited = soften(make_table(4), GivenReference(cosine, is_known), make_batch)
    torch.testing.assert_close(edited.share, torch.eye(4, dtype=torch.float64))


def test_carries_no_gradient_and_leaves_that_of_the_similarities(cosine, make_table, make_batch):
    sim = make_table(4).sim.clone().requires_grad_()
    judge = GivenReference(cosine.clone().requires_grad_())

    def loss(s: torch.Tensor) -> torch.Tensor:
        return SupervisedContrast(temperature=0.5)(
            soften(replace(make_table(4), sim=s), judge, make_batch), make_batch()
        )

    assert torch.autograd.gradcheck(loss, (sim,))
    loss(sim).backward()
    assert judge.cosine.grad is None


def test_follows_a_permutation_of_the_examples(cosine, make_rows, make_batch):
    anchor, positive = make_rows(4), make_rows(4, seed=1)
    order = torch.tensor([3, 1, 0, 2])
    one = soften(in_batch_table(anchor, positive), GivenReference(cosine), make_batch)
    moved = in_batch_table(permuted(anchor, order), permuted(positive, order))
    other = soften(moved, GivenReference(cosine[order][:, order]), make_batch)
    torch.testing.assert_close(one.share[order][:, order], other.share)


def test_edges(make_table, make_batch):
    one = soften(make_table(1, dtype=torch.bfloat16), GivenReference(torch.tensor([[0.5]])), make_batch)
    assert one.share.tolist() == [[1.0]]
    table = make_table(3)
    removed = replace(table, log_weight=torch.full_like(table.log_weight, -math.inf))
    edited = soften(removed, GivenReference(torch.rand(3, 3)), make_batch)
    assert edited.share.tolist() == [[0.0] * 3] * 3
    assert torch.equal(edited.positive, table.positive)


def test_an_average_without_keys_is_told(make_table, make_batch):
    with pytest.raises(RecipeError, match="set keys = true"):
        Soften()(make_table(2), make_batch(companions={"momentum": Momentum()}))
    assert "keys = true" in Soften().faults({"companions": [Momentum()]})[0]
    assert Soften().faults({"companions": [Momentum(keys=True)]}) == []


@pytest.mark.parametrize("bad", [{"weight": 0.0}, {"weight": 1.5}, {"temperature": 0.0}])
def test_refuses_values_outside_its_domain(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Soften(**bad)
