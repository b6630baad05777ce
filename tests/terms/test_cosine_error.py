"""cosine_error against a loop, by hand, and at its edges."""

from __future__ import annotations

import pytest
import torch

from sentemb.errors import DataError
from sentemb.terms.cosine_error import CosineError

SCORES = torch.tensor([0.0, 2.5, 5.0, 4.0])


def test_equals_the_loop(table_of, batch_of, random_sim):
    sim = random_sim(4, 6)
    loss = CosineError(lowest=-5.0, highest=5.0)(table_of(sim), batch_of(4, score=SCORES))
    expected = sum((sim[i, i].item() - (SCORES[i].item() + 5) / 10) ** 2 for i in range(4)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-7)


def test_hand_worked_two_by_two(table_of, batch_of):
    # targets 0.5 and 1: (1 - 0.5)² and (0.6 - 1)²
    table = table_of(torch.tensor([[1.0, 0.0], [0.5, 0.6]]))
    loss = CosineError(highest=5.0)(table, batch_of(score=torch.tensor([2.5, 5.0])))
    assert loss.item() == pytest.approx((0.25 + 0.16) / 2)


def test_order_of_examples_does_not_matter(table_of, batch_of, random_sim):
    sim, order = random_sim(4, 4).detach(), [2, 0, 3, 1]
    term = CosineError(highest=5.0)
    before = term(table_of(sim), batch_of(4, score=SCORES))
    after = term(table_of(sim[order][:, order]), batch_of(4, score=SCORES[order]))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(table_of, batch_of, random_sim):
    term = CosineError(highest=5.0)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s), batch_of(4, score=SCORES)), (random_sim(4, 5),))


def test_one_example_and_bfloat16(table_of, batch_of):
    table = table_of(torch.tensor([[0.5]]).bfloat16(), log_weight=torch.zeros(1, 1))
    loss = CosineError()(table, batch_of(1, score=torch.tensor([1.0])))
    assert loss.dtype == torch.float32
    assert loss.item() == 0.25


def test_data_without_scores_are_named(table_of, batch_of):
    with pytest.raises(DataError, match="cosine_error needs graded scores"):
        CosineError()(table_of(torch.eye(2)), batch_of())


def test_range_must_not_be_empty():
    with pytest.raises(ValueError, match="lowest below highest"):
        CosineError(lowest=1.0, highest=1.0)
