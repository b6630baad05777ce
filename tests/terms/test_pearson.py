"""pearson against scipy, by hand, and at its edges."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import pearsonr

from sentemb.errors import DataError
from sentemb.terms import Pearson

SCORES = torch.tensor([0.0, 4.5, 0.0, 2.0, 5.0])


def test_equals_scipy(table_of, batch_of, random_sim):
    sim = random_sim(5, 7)
    loss = Pearson()(table_of(sim), batch_of(5, score=SCORES)).item()
    own = sim.detach().diagonal().numpy()
    assert loss == pytest.approx(1 - pearsonr(own, SCORES.double().numpy()).statistic, rel=1e-10)


def test_hand_worked(table_of, batch_of):
    # s - s̄ = (-0.2, 0, 0.2), y - ȳ = (-1, 1, 0): 0.2 / (√0.08 · √2) = 0.5
    sim = torch.diag(torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64))
    assert Pearson()(table_of(sim), batch_of(3, score=torch.tensor([1.0, 3.0, 2.0]))).item() == pytest.approx(0.5)


def test_level_and_spread_of_similarities_and_scores_do_not_matter(table_of, batch_of, random_sim):
    sim = random_sim(5, 5).detach()
    first = Pearson()(table_of(sim), batch_of(5, score=SCORES))
    second = Pearson()(table_of(0.3 * sim + 0.2), batch_of(5, score=7 * SCORES - 3))
    assert second.item() == pytest.approx(first.item(), abs=1e-7)


def test_order_of_examples_does_not_matter(table_of, batch_of, random_sim):
    sim, order = random_sim(5, 5).detach(), [4, 2, 0, 1, 3]
    before = Pearson()(table_of(sim), batch_of(5, score=SCORES))
    after = Pearson()(table_of(sim[order][:, order]), batch_of(5, score=SCORES[order]))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(table_of, batch_of, random_sim):
    assert torch.autograd.gradcheck(lambda s: Pearson()(table_of(s), batch_of(5, score=SCORES)), (random_sim(5, 5),))


@pytest.mark.parametrize("n", [1, 4])
def test_equal_scores_give_zero_and_no_gradient(table_of, batch_of, random_sim, n):
    sim = random_sim(n, n)
    loss = Pearson()(table_of(sim), batch_of(n, score=torch.ones(n)))
    loss.backward()
    assert loss.item() == 0.0
    assert (sim.grad == 0).all()


def test_equal_scores_whose_mean_rounds_give_zero_too(table_of, batch_of):
    table = table_of(torch.randn(7, 7, generator=torch.Generator().manual_seed(0)))
    assert Pearson()(table, batch_of(7, score=torch.full((7,), 0.1))).item() == 0.0


def test_equal_similarities_are_uncorrelated_and_have_no_gradient(table_of, batch_of):
    sim = torch.full((5, 5), 0.7, dtype=torch.float64, requires_grad=True)
    loss = Pearson()(table_of(sim), batch_of(5, score=SCORES))
    loss.backward()
    assert loss.item() == 1.0
    assert (sim.grad == 0).all()


def test_bfloat16_table_is_scored_in_float32(table_of, batch_of, random_sim):
    sim = random_sim(5, 5).detach().bfloat16()
    loss = Pearson()(table_of(sim, log_weight=torch.zeros(5, 5)), batch_of(5, score=SCORES))
    assert loss.dtype == torch.float32


def test_data_without_scores_are_refused(table_of, batch_of, random_sim):
    with pytest.raises(DataError, match="pearson needs graded scores"):
        Pearson()(table_of(random_sim(3, 3)), batch_of(3))
