"""rank_kl against a loop with ties, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.errors import DataError
from sentemb.terms import RankKL

SCORES = torch.tensor([0.2, 0.9, 0.2, 0.5, 1.0])


def loop_reference(sim, score, temperature):
    n = len(score)
    order = sorted(range(n), key=lambda i: -score[i])
    rank = [sum(order.index(j) for j in range(n) if score[j] == score[i]) / score.count(score[i]) for i in range(n)]
    target = [math.exp((n - 1 - rank[i]) / (n - 1) / temperature) for i in range(n)]
    own = [math.exp(float(sim[i, i]) / temperature) for i in range(n)]
    p, q = ([x / sum(values) for x in values] for values in (target, own))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / n


@pytest.mark.parametrize("score", [SCORES, torch.tensor([3.0, 3.0, 1.0, 3.0, 1.0]), torch.ones(5)])
def test_equals_the_loop(table_of, batch_of, random_sim, score):
    sim = random_sim(5, 7)
    loss = RankKL(temperature=0.3)(table_of(sim), batch_of(5, score=score))
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), score.tolist(), 0.3), rel=1e-10)


def test_hand_worked_two_by_two(table_of, batch_of):
    # t = (1, 0), s = (0, 0), τ = 1: p = (0.731059, 0.268941), q = (1/2, 1/2); KL = 0.110947 over n = 2
    table = table_of(torch.zeros(2, 2, dtype=torch.float64))
    loss = RankKL(temperature=1.0)(table, batch_of(score=torch.tensor([4.0, 1.0])))
    assert loss.item() == pytest.approx(0.055472, abs=1e-6)


def test_similarities_that_are_the_ranks_are_perfect(table_of, batch_of):
    sim = torch.diag(torch.tensor([0.125, 0.75, 0.125, 0.5, 1.0], dtype=torch.float64))  # SCORES' t
    assert RankKL()(table_of(sim), batch_of(5, score=SCORES)).item() == pytest.approx(0.0, abs=1e-12)


def test_only_the_order_of_scores_matters(table_of, batch_of, random_sim):
    table = table_of(random_sim(5, 5))
    first = RankKL()(table, batch_of(5, score=SCORES))
    assert torch.equal(first, RankKL()(table, batch_of(5, score=SCORES.exp() * 100)))


def test_order_of_examples_does_not_matter(table_of, batch_of, random_sim):
    sim, order = random_sim(5, 5).detach(), [4, 2, 0, 1, 3]
    before = RankKL()(table_of(sim), batch_of(5, score=SCORES))
    after = RankKL()(table_of(sim[order][:, order]), batch_of(5, score=SCORES[order]))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(table_of, batch_of, random_sim):
    term = RankKL(temperature=0.2)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s), batch_of(5, score=SCORES)), (random_sim(5, 5),))


def test_one_pair_gives_zero_and_no_gradient(table_of, batch_of, random_sim):
    sim = random_sim(1, 1)
    loss = RankKL()(table_of(sim), batch_of(1, score=torch.ones(1)))
    loss.backward()
    assert loss.item() == 0.0
    assert (sim.grad == 0).all()


def test_bfloat16_table_is_scored_in_float32(table_of, batch_of, random_sim):
    sim = random_sim(5, 5).detach().bfloat16()
    loss = RankKL()(table_of(sim, log_weight=torch.zeros(5, 5)), batch_of(5, score=SCORES))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_bad_settings_and_data_are_refused(table_of, batch_of, random_sim):
    with pytest.raises(ValueError, match="temperature"):
        RankKL(temperature=0)
    with pytest.raises(DataError, match="rank_kl needs graded scores"):
        RankKL()(table_of(random_sim(3, 3)), batch_of(3))
