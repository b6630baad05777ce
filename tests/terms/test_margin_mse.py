"""margin_mse against a loop, by hand, and at its edges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sentemb.errors import DataError
from sentemb.maths.table import score_table
from sentemb.terms import MarginMSE


def rows(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(n=4, negatives=2, similarity="cosine"):
    scores = [torch.randn(n, generator=torch.Generator().manual_seed(9 + k)) for k in range(negatives + 1)]
    hard = [rows(n, 5, 2 + k) for k in range(negatives)]
    return score_table(
        rows(n, 5, 0), rows(n, 5, 1), negatives=hard, scores=scores[0], negative_scores=scores[1:],
        similarity=similarity,
    )


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_equals_the_loop(similarity):
    table, batch = case(similarity=similarity)

    def s(i, view):
        u, v = batch.views["anchor"].embedding[i], batch.views[view].embedding[i]
        return float(u @ v) if similarity == "dot" else float(F.cosine_similarity(u, v, dim=0))

    errors = [
        (s(i, "positive") - s(i, name) - (float(batch.score[i]) - float(score[i])) / 3) ** 2
        for name, score in batch.negative_scores.items() for i in range(4)
    ]
    assert MarginMSE(unit=3.0)(table, batch).item() == pytest.approx(sum(errors) / len(errors), rel=1e-6)


def test_hand_worked():
    # the positive is ahead by 1 - 0, the teacher's by (5 - 1) / 8: (1 - 0.5)² = 0.25
    eye = torch.eye(2)
    table, batch = score_table(
        eye, eye, negatives=[eye.flip(0)], scores=torch.full((2,), 5.0), negative_scores=[torch.ones(2)]
    )
    assert MarginMSE(unit=8.0)(table, batch).item() == pytest.approx(0.25)


def test_only_differences_of_the_teacher_matter():
    table, batch = case()
    moved = case()[1]
    for score in (moved.score, *moved.negative_scores.values()):
        score += 7
    assert MarginMSE()(table, moved).item() == pytest.approx(MarginMSE()(table, batch).item(), rel=1e-5)


def test_gradcheck_bfloat16_and_one_example():
    _, batch = case(n=3)

    def loss(anchor, positive, negative):
        changed = score_table(
            anchor, positive, negatives=[negative], scores=batch.score, negative_scores=[torch.ones(3)]
        )
        return MarginMSE()(*changed)

    assert torch.autograd.gradcheck(loss, [rows(3, 3, seed).requires_grad_() for seed in range(3)])
    half = rows(1, 4, 0).bfloat16()
    one = score_table(half, half, negatives=[half], scores=torch.ones(1), negative_scores=[torch.zeros(1)])
    assert MarginMSE()(*one).item() == 1.0


def test_data_without_scores_and_bad_units_are_refused():
    with pytest.raises(DataError, match="add the columns score, score_1"):
        MarginMSE()(*score_table(torch.eye(2), torch.eye(2), scores=torch.ones(2)))
    with pytest.raises(ValueError, match="unit"):
        MarginMSE(unit=0)
