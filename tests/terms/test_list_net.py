"""list_net against a loop, by hand, and what it needs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sentemb.edits import Given, SameLabel
from sentemb.errors import RecipeError
from sentemb.maths.table import score_table
from sentemb.terms import ListNet


@pytest.fixture
def graded(table_of, random_sim):
    """Four anchors, six candidates, one of them removed."""
    sim = random_sim(4, 6)
    log_weight = random_sim(4, 6, seed=1).detach()
    log_weight[2, 3] = -math.inf
    grade = torch.tensor([[3, 0, 1, 0, 0, 2], [0, 1, 0, 0, 0, 0], [0, 0, 2, 3, 0, 0.5], [0, 0, 0, 0, 0, 0]])
    return replace(table_of(sim, log_weight=log_weight), grade=grade)


def loop_reference(table, temperature, grade_temperature):
    table = replace(table, sim=table.sim.detach())
    n, m = table.sim.shape
    total = 0.0
    for i in range(n):
        live = [j for j in range(m) if math.isfinite(table.log_weight[i, j])]
        p = [math.exp(float(table.sim[i, j]) / temperature + float(table.log_weight[i, j])) for j in live]
        t = [math.exp(float(table.grade[i, j]) / grade_temperature) for j in live]
        total -= sum(b / sum(t) * math.log(a / sum(p)) for a, b in zip(p, t, strict=True)) / n
    return total


def test_equals_the_loop(graded, batch_of):
    loss = ListNet(temperature=0.3, grade_temperature=0.7)(graded, batch_of(4))
    assert loss.item() == pytest.approx(loop_reference(graded, 0.3, 0.7), rel=1e-10)


def test_hand_worked(table_of, batch_of):
    # P = (e, 1) / (e + 1), T = (2, 1) / 3: log(e + 1) - 2/3 = 0.646595
    table = table_of(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    table = replace(table, grade=torch.tensor([[math.log(2), 0.0]], dtype=torch.float64))
    loss = ListNet(temperature=1.0, grade_temperature=1.0)(table, batch_of(1))
    assert loss.item() == pytest.approx(math.log(math.e + 1) - 2 / 3, rel=1e-12)


def test_sharp_grades_of_one_candidate_are_info_nce(table_of, batch_of, random_sim):
    from sentemb.terms import InfoNCE

    table = replace(table_of(random_sim(3, 5)), grade=torch.eye(3, 5))
    expected = InfoNCE(temperature=0.2)(table, batch_of(3)).item()
    loss = ListNet(temperature=0.2, grade_temperature=0.001)(table, batch_of(3))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_similarities_that_are_the_grades_are_best(table_of, batch_of):
    grade = torch.tensor([[3.0, 0, 1], [0, 2, 0]], dtype=torch.float64)
    best = replace(table_of(grade / 10), grade=grade)
    other = replace(table_of(grade.flip(1) / 10), grade=grade)
    term = ListNet(temperature=0.1, grade_temperature=1.0)
    assert term(best, batch_of()).item() < term(other, batch_of()).item()


def test_gradcheck_permutation_and_bfloat16(graded, batch_of):
    term, batch = ListNet(temperature=0.3), batch_of(4)
    assert torch.autograd.gradcheck(lambda sim: term(replace(graded, sim=sim), batch), (graded.sim,))
    rows, columns = [2, 0, 3, 1], [5, 2, 0, 4, 1, 3]
    turned = {name: getattr(graded, name)[rows][:, columns] for name in ("sim", "log_weight", "grade")}
    assert term(replace(graded, **turned), batch).item() == pytest.approx(term(graded, batch).item(), rel=1e-12)
    half = replace(graded, sim=graded.sim.detach().bfloat16(), log_weight=torch.zeros(4, 6))
    assert term(half, batch).dtype == torch.float32


def test_reads_what_given_puts_into_the_table():
    eye = torch.eye(3)
    table, batch = score_table(eye, eye, negatives=[eye.roll(1, 0)], grades=[torch.full((3,), 2.0), torch.ones(3)])
    loss = ListNet()(Given()(table, batch), batch)
    assert torch.isfinite(loss)
    with pytest.raises(RecipeError, match=r'add .*use = "given"'):
        ListNet()(table, batch)


def test_a_recipe_without_given_has_a_fault():
    assert ListNet().faults({"edits": (SameLabel(),)}) == ListNet().faults({"edits": ()})
    assert "given" in ListNet().faults({"edits": ()})[0]
    assert ListNet().faults({"edits": (Given(),)}) == []
    assert ListNet().marked(without=["given"]).faults({"edits": (Given(),)})
    assert ListNet.needs == {"grades"}
    with pytest.raises(ValueError, match="grade_temperature"):
        ListNet(grade_temperature=0)
