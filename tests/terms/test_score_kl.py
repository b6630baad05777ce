"""score_kl against a loop, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from test_margin_mse import case, rows

from sentemb.errors import DataError
from sentemb.maths.table import score_table
from sentemb.terms import ScoreKL


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_equals_the_loop(similarity):
    table, batch = case(similarity=similarity)
    total = 0.0
    for i in range(4):
        p, q = [], []
        scores = {"positive": batch.score, **batch.negative_scores}
        for name, score in scores.items():
            u, v = batch.views["anchor"].embedding[i], batch.views[name].embedding[i]
            s = float(u @ v) if similarity == "dot" else float(F.cosine_similarity(u, v, dim=0))
            p.append(math.exp(s / 0.3))
            q.append(math.exp(float(score[i]) / 2))
        total += sum(b / sum(q) * math.log((b / sum(q)) / (a / sum(p))) for a, b in zip(p, q, strict=True)) / 4
    assert ScoreKL(temperature=0.3, score_temperature=2.0)(table, batch).item() == pytest.approx(total, rel=1e-6)


def test_hand_worked():
    # similarities 1 and 0, τ = 1: p = (e, 1) / (e + 1); equal scores: q = (½, ½)
    eye = torch.eye(2)
    table, batch = score_table(
        eye, eye, negatives=[eye.flip(0)], scores=torch.full((2,), 5.0), negative_scores=[torch.full((2,), 5.0)]
    )
    wanted = 0.5 * math.log(0.5 * (math.e + 1) / math.e) + 0.5 * math.log(0.5 * (math.e + 1))
    assert ScoreKL(temperature=1.0)(table, batch).item() == pytest.approx(wanted, rel=1e-6)


def test_a_constant_added_to_the_scores_changes_nothing_and_agreement_is_0():
    table, batch = case()
    before = ScoreKL()(table, batch).item()
    for score in (batch.score, *batch.negative_scores.values()):
        score += 7
    assert ScoreKL()(table, batch).item() == pytest.approx(before, rel=1e-5)
    for name, score in {"positive": batch.score, **batch.negative_scores}.items():
        score.copy_(F.cosine_similarity(batch.views["anchor"].embedding, batch.views[name].embedding))
    assert ScoreKL(temperature=0.05, score_temperature=0.05)(table, batch).item() == pytest.approx(0.0, abs=1e-6)


def test_the_order_of_examples_does_not_matter():
    parts, order = [rows(4, 5, seed) for seed in range(3)], [2, 0, 3, 1]
    score, other = torch.randn(4), torch.randn(4)
    one = score_table(parts[0], parts[1], negatives=[parts[2]], scores=score, negative_scores=[other])
    two = score_table(*(part[order] for part in parts[:2]), negatives=[parts[2][order]], scores=score[order],
                      negative_scores=[other[order]])
    assert ScoreKL()(*two).item() == pytest.approx(ScoreKL()(*one).item(), rel=1e-6)


def test_gradcheck_bfloat16_and_one_example():
    def loss(anchor, positive, negative):
        scores = torch.tensor([0.5, 2.0, -1.0])
        changed = score_table(
            anchor, positive, negatives=[negative], scores=scores, negative_scores=[torch.ones(3)]
        )
        return ScoreKL(temperature=0.5)(*changed)

    assert torch.autograd.gradcheck(loss, [rows(3, 3, seed).requires_grad_() for seed in range(3)])
    half = rows(1, 4, 0).bfloat16()
    one = score_table(half, half, negatives=[half], scores=torch.ones(1), negative_scores=[torch.ones(1)])
    assert ScoreKL()(*one).item() == pytest.approx(0.0, abs=1e-6)


def test_data_without_scores_and_bad_temperatures_are_refused():
    with pytest.raises(DataError, match="add the columns score, score_1"):
        ScoreKL()(*score_table(torch.eye(2), torch.eye(2), scores=torch.ones(2)))
    for wrong in ({"temperature": 0.0}, {"score_temperature": 0.0}):
        with pytest.raises(ValueError, match="temperature"):
            ScoreKL(**wrong)
