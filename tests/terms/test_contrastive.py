"""contrastive against a loop, by hand, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_module import services_of

from sentemb.errors import DataError
from sentemb.terms import Contrastive
from sentemb.types import Examples

SCORES = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])


def loop_reference(sim, score, margin):
    total = 0.0
    for i in range(len(score)):
        distance = 1 - float(sim[i, i])
        total += distance**2 if score[i] == 1 else max(0.0, margin - distance) ** 2
    return total / 2 / len(score)


def test_equals_the_loop(table_of, batch_of, random_sim):
    sim = random_sim(5, 7)
    loss = Contrastive(margin=0.9)(table_of(sim), batch_of(5, score=SCORES))
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), SCORES, 0.9), rel=1e-10)


def test_hand_worked_two_by_two(table_of, batch_of):
    # ½ (0.2² + (0.5 - 0.4)²) / 2 = 0.0125
    table = table_of(torch.tensor([[0.8, 0.0], [0.9, 0.6]], dtype=torch.float64))
    assert Contrastive(margin=0.5)(table, batch_of(score=torch.tensor([1.0, 0.0]))).item() == pytest.approx(0.0125)


def test_order_of_examples_does_not_matter(table_of, batch_of, random_sim):
    sim, order = random_sim(5, 5).detach(), [4, 2, 0, 1, 3]
    before = Contrastive()(table_of(sim), batch_of(5, score=SCORES))
    after = Contrastive()(table_of(sim[order][:, order]), batch_of(5, score=SCORES[order]))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck_and_pairs_beyond_the_margin_are_left_alone(table_of, batch_of, random_sim):
    term = Contrastive(margin=0.7)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s), batch_of(5, score=SCORES)), (random_sim(5, 5),))
    sim = torch.zeros(2, 2, requires_grad=True)
    term(table_of(sim), batch_of(score=torch.zeros(2))).backward()
    assert (sim.grad == 0).all()


def test_bfloat16_and_one_pair(table_of, batch_of, random_sim):
    sim = random_sim(1, 1).detach().bfloat16()
    loss = Contrastive()(table_of(sim, log_weight=torch.zeros(1, 1)), batch_of(1, score=torch.ones(1)))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((1 - float(sim)) ** 2 / 2)


def test_graded_scores_and_bad_margins_are_refused(table_of, batch_of, random_sim):
    score = np.float32([1, 0, 0.5])
    with pytest.raises(DataError, match=r"row 3 has the score 0.5; scores must be 0 or 1"):
        Contrastive().prepare(Examples(ids=np.arange(3), columns={}, score=score), services_of([]))
    with pytest.raises(ValueError, match="margin"):
        Contrastive(margin=0)
    binary = Examples(ids=np.arange(2), columns={}, score=np.float32([1, 0]))
    graded = Examples(ids=np.arange(2, 5), columns={}, score=score)
    mixture = Examples(
        ids=np.arange(5), columns={}, score=np.concatenate([binary.score, score]), sources={"a": binary, "b": graded}
    )
    Contrastive().marked(only=["a"]).prepare(mixture, services_of([]))  # no row of the source b is its
    with pytest.raises(DataError, match=r'source "b", row 3 has the score 0.5'):
        Contrastive().prepare(mixture, services_of([]))
    with pytest.raises(DataError, match="contrastive needs graded scores"):
        Contrastive()(table_of(random_sim(3, 3)), batch_of(3))
