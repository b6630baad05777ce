"""preference_rank against a double loop with ties, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.errors import DataError
from sentemb.terms import PreferenceRank

SCORES = torch.tensor([0.2, 0.9, 0.2, 0.5, 1.0])


def loop_reference(sim, score, temperature):
    """Sorted by score as in the released code, though the order does not matter."""
    order = sorted(range(len(score)), key=lambda i: -score[i])
    losses = []
    for place, k in enumerate(order):
        tail = [j for j in order[place + 1 :] if score[k] - score[j] > 1e-8]
        if tail:
            most = max(score[k] - score[j] for j in tail)
            winner = math.exp(float(sim[k, k]) / temperature * most)
            losers = sum(math.exp(float(sim[j, j]) / temperature * (score[k] - score[j])) for j in tail)
            losses.append(-math.log(winner / (winner + losers)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("score", [SCORES, torch.tensor([3.0, 3.0, 1.0, 3.0, 1.0])])
def test_equals_the_loop(table_of, batch_of, random_sim, score):
    sim = random_sim(5, 7)
    loss = PreferenceRank(temperature=0.3)(table_of(sim), batch_of(5, score=score))
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), score.tolist(), 0.3), rel=1e-6)


def test_hand_worked_two_by_two(table_of, batch_of):
    # the second wins by 2: logits 2 · 0.6 and 2 · 1.0, log(1 + e^0.8) = 1.171101
    table = table_of(torch.tensor([[1.0, 0.0], [0.5, 0.6]], dtype=torch.float64))
    loss = PreferenceRank(temperature=1.0)(table, batch_of(score=torch.tensor([1.0, 3.0])))
    assert loss.item() == pytest.approx(1.171101, abs=1e-6)


def test_scores_are_divided_by_their_highest(table_of, batch_of, random_sim):
    table = table_of(random_sim(5, 5))
    first = PreferenceRank(highest=5.0)(table, batch_of(5, score=5 * SCORES))
    assert first.item() == pytest.approx(PreferenceRank()(table, batch_of(5, score=SCORES)).item(), rel=1e-6)


def test_order_of_examples_does_not_matter(table_of, batch_of, random_sim):
    sim, order = random_sim(5, 5).detach(), [4, 2, 0, 1, 3]
    before = PreferenceRank()(table_of(sim), batch_of(5, score=SCORES))
    after = PreferenceRank()(table_of(sim[order][:, order]), batch_of(5, score=SCORES[order]))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(table_of, batch_of, random_sim):
    term = PreferenceRank(temperature=0.2)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s), batch_of(5, score=SCORES)), (random_sim(5, 5),))


@pytest.mark.parametrize("n", [1, 4])
def test_equal_scores_give_zero_and_no_gradient(table_of, batch_of, random_sim, n):
    sim = random_sim(n, n)
    loss = PreferenceRank()(table_of(sim), batch_of(n, score=torch.ones(n)))
    loss.backward()
    assert loss.item() == 0.0
    assert (sim.grad == 0).all()


def test_bfloat16_table_is_scored_in_float32(table_of, batch_of, random_sim):
    sim = random_sim(5, 5).detach().bfloat16()
    loss = PreferenceRank()(table_of(sim, log_weight=torch.zeros(5, 5)), batch_of(5, score=SCORES))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_bad_settings_and_data_are_refused(table_of, batch_of, random_sim):
    for settings in ({"temperature": 0}, {"highest": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            PreferenceRank(**settings)
    with pytest.raises(DataError, match="preference_rank needs graded scores"):
        PreferenceRank()(table_of(random_sim(3, 3)), batch_of(3))
