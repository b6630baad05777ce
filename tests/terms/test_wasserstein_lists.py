"""wasserstein_lists against full covariances and scipy's root of a matrix, and its symmetries."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from sentemb.edits import Given
from sentemb.errors import RecipeError
from sentemb.terms import WassersteinLists


@pytest.fixture
def graded(table_of, random_sim):
    """Four anchors, six candidates, one of them removed."""
    log_weight = torch.zeros(4, 6, dtype=torch.float64)
    log_weight[2, 3] = -math.inf
    grade = torch.tensor([[3, 0, 1, 0, 0, 2], [0, 1, 0, 0, 0, 0], [0, 0, 2, 3, 0, 0.5], [0, 0, 0, 1, 0, 0]])
    return replace(table_of(random_sim(4, 6), log_weight=log_weight), grade=grade)


def softmax(rows):
    exponentials = np.exp(rows)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def reference(table, temperature, grade_temperature):
    dead = np.where(np.isfinite(table.log_weight.numpy()), 0.0, -np.inf)
    p = softmax(table.sim.detach().numpy() / temperature + dead)
    t = softmax(table.grade.double().numpy() / grade_temperature + dead)
    covariance_p, covariance_t = np.cov(p.T), np.cov(t.T)
    root = sqrtm(covariance_p)
    cross = sqrtm(root @ covariance_t @ root)
    mean = ((p.mean(0) - t.mean(0)) ** 2).sum()
    return mean + np.trace(covariance_p) + np.trace(covariance_t) - 2 * np.trace(cross).real


def test_equals_full_covariances(graded, batch_of):
    loss = WassersteinLists(temperature=0.4, grade_temperature=0.7)(graded, batch_of(4))
    assert loss.item() == pytest.approx(reference(graded, 0.4, 0.7), rel=1e-5)


def test_hand_worked(table_of, batch_of):
    # P = (1, 0), (0, 1) but for rounding, T = (½, ½) twice: means agree, tr Σ_P = ½ + ½, tr Σ_T = 0
    table = replace(table_of(torch.eye(2, dtype=torch.float64)), grade=torch.ones(2, 2))
    loss = WassersteinLists(temperature=0.01, grade_temperature=1.0)(table, batch_of())
    assert loss.item() == pytest.approx(1.0, abs=1e-9)


def test_zero_where_both_are_equal(graded, batch_of):
    table = replace(graded, grade=graded.sim.detach())
    loss = WassersteinLists(temperature=0.5, grade_temperature=0.5)(table, batch_of(4))
    assert loss.item() == pytest.approx(0.0, abs=1e-9)


def test_only_the_set_of_rows_matters(graded, batch_of):
    """Rows of the grades may change places where the removed pairs do not."""
    graded = replace(graded, log_weight=torch.zeros_like(graded.log_weight))
    term = WassersteinLists(temperature=0.4)
    before = term(graded, batch_of(4)).item()
    moved = replace(graded, grade=graded.grade[[2, 0, 3, 1]])
    assert term(moved, batch_of(4)).item() == pytest.approx(before, rel=1e-9)
    rows, columns = [2, 0, 3, 1], [5, 2, 0, 4, 1, 3]
    turned = {name: getattr(graded, name)[rows][:, columns] for name in ("sim", "grade")}
    assert term(replace(graded, **turned), batch_of(4)).item() == pytest.approx(before, rel=1e-9)


def test_gradcheck_and_bfloat16(graded, batch_of):
    term = WassersteinLists(temperature=0.5)
    assert torch.autograd.gradcheck(lambda sim: term(replace(graded, sim=sim), batch_of(4)), (graded.sim,))
    half = replace(graded, sim=graded.sim.detach().bfloat16(), log_weight=torch.zeros(4, 6))
    assert torch.isfinite(term(half, batch_of(4)))


def test_embeddings_that_are_not_finite_make_the_loss_nan(graded, batch_of):
    broken = graded.sim.detach().clone()
    broken[1] = math.nan
    assert torch.isnan(WassersteinLists()(replace(graded, sim=broken), batch_of(4)))


def test_one_example_and_tables_without_grades_are_refused(table_of, batch_of, random_sim):
    with pytest.raises(RecipeError, match="one example has no covariance"):
        WassersteinLists()(replace(table_of(random_sim(1, 4)), grade=torch.ones(1, 4)), batch_of(1))
    with pytest.raises(RecipeError, match="given"):
        WassersteinLists()(table_of(random_sim(3, 3)), batch_of(3))
    assert WassersteinLists().faults({"edits": ()})
    assert not WassersteinLists().faults({"edits": (Given(),)})
    with pytest.raises(ValueError, match="temperature"):
        WassersteinLists(temperature=0)
