"""online_contrastive against a loop, by hand, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_module import services_of

from sentemb.errors import DataError
from sentemb.terms import OnlineContrastive
from sentemb.types import Examples

SCORES = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])


def loop_reference(sim, score, margin):
    distance = [1 - float(sim[i, i]) for i in range(len(score))]
    together = [d for d, y in zip(distance, score, strict=True) if y == 1]
    apart = [d for d, y in zip(distance, score, strict=True) if y == 0]
    above = min(apart) if apart else sum(together) / len(together)
    below = max(together) if together else sum(apart) / len(apart)
    total = sum(d**2 for d in together if d > above)
    return (total + sum(max(0.0, margin - d) ** 2 for d in apart if d < below)) / len(score)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("score", [SCORES, torch.ones(5), torch.zeros(5)])
def test_equals_the_loop(table_of, batch_of, random_sim, score, seed):
    sim = random_sim(5, 7, seed)
    loss = OnlineContrastive(margin=0.9)(table_of(sim), batch_of(5, score=score))
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), score, 0.9), rel=1e-10)


def test_hand_worked(table_of, batch_of):
    # distances 0.5, 0.1 together and 0.3, 0.6 apart: 0.5 > 0.3 and 0.3 < 0.5 are hard: (0.5² + 0.2²) / 4 = 0.0725
    sim = torch.diag(torch.tensor([0.5, 0.9, 0.7, 0.4], dtype=torch.float64))
    score = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert OnlineContrastive(margin=0.5)(table_of(sim), batch_of(4, score=score)).item() == pytest.approx(0.0725)


def test_pairs_in_order_give_zero_and_no_gradient(table_of, batch_of):
    sim = torch.diag(torch.tensor([0.9, 0.8, 0.7, 0.6])).requires_grad_()
    loss = OnlineContrastive(margin=2.0)(table_of(sim), batch_of(4, score=torch.tensor([1.0, 1.0, 0.0, 0.0])))
    loss.backward()
    assert loss.item() == 0
    assert (sim.grad == 0).all()


def test_order_of_examples_does_not_matter(table_of, batch_of, random_sim):
    sim, order = random_sim(5, 5).detach(), [4, 2, 0, 1, 3]
    before = OnlineContrastive()(table_of(sim), batch_of(5, score=SCORES))
    after = OnlineContrastive()(table_of(sim[order][:, order]), batch_of(5, score=SCORES[order]))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck_bfloat16_and_one_pair(table_of, batch_of, random_sim):
    term = OnlineContrastive(margin=0.7)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s), batch_of(5, score=SCORES)), (random_sim(5, 5),))
    sim = random_sim(1, 1).detach().bfloat16()
    loss = term(table_of(sim, log_weight=torch.zeros(1, 1)), batch_of(1, score=torch.ones(1)))
    assert loss.dtype == torch.float32
    assert loss.item() == 0  # its distance is its own mean


def test_graded_scores_and_bad_margins_are_refused():
    with pytest.raises(DataError, match=r"row 2 has the score 3; scores must be 0 or 1"):
        OnlineContrastive().prepare(Examples(ids=np.arange(2), columns={}, score=np.float32([0, 3])), services_of([]))
    with pytest.raises(ValueError, match="margin"):
        OnlineContrastive(margin=-1)
