"""level_contrast against a loop over anchors, levels and candidates, by hand, and at its edges."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_module import services_of

from sentemb.errors import DataError, RecipeError
from sentemb.maths.table import add_candidates, score_table
from sentemb.terms import LevelContrast
from sentemb.types import Examples

LABELS = torch.tensor([0, 0, 1, 2, 3, -1])
LEVELS = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 0], [2, 1], [2, 1]])


def rows(n, seed, d=4):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(labels=LABELS, levels=LEVELS):
    return score_table(rows(len(labels), 0), rows(len(labels), 1), labels=labels, levels=levels)


def loop_reference(table, labels, temperature, weights):
    """``labels``: a list of levels of every example."""
    n = len(labels)
    unit = [F.normalize(side.embedding, dim=1) for side in (table.anchor, table.candidate)]

    def logit(i, j):
        return float(unit[0][i] @ unit[1][j]) / temperature

    def same(i, j, level):
        return labels[i][level] == labels[j][level] != -1

    def other(i, j, level):
        return labels[i][level] != labels[j][level] and -1 not in (labels[i][level], labels[j][level])

    total = 0.0
    for level, weight in enumerate(weights):
        losses = []
        for i in range(n):
            near = [
                j for j in range(n)
                if math.isfinite(table.log_weight[i, j]) and same(i, j, level)
                and (level == 0 or other(i, j, level - 1))
            ]
            far = [j for j in range(n) if math.isfinite(table.log_weight[i, j]) and other(i, j, level)]
            if near:
                attraction = math.exp(sum(logit(i, j) for j in near) / len(near))
                losses.append(-math.log(attraction / (attraction + sum(math.exp(logit(i, j)) for j in far))))
        total += weight * (sum(losses) / len(losses) if losses else 0.0)
    return total


@pytest.mark.parametrize("weights", [None, (1.0, 0.5, 2.0)])
def test_equals_the_loop(weights):
    table, batch = case()
    log_weight = torch.zeros_like(table.log_weight)
    log_weight[0, 3] = log_weight[1, 1] = -math.inf
    table = replace(table, log_weight=log_weight)
    labels = torch.cat([LABELS[:, None], LEVELS], dim=1).tolist()
    loss = LevelContrast(temperature=0.3, weights=weights)(table, batch)
    assert loss.item() == pytest.approx(loop_reference(table, labels, 0.3, weights or (1, 1, 1)), rel=1e-10)


def test_hand_worked():
    # level 1: own row, e against 1 + 1; level 2: of the first two each other: 1 = e⁰ against 1; the third has none
    eye = torch.eye(3, dtype=torch.float64)
    table, batch = score_table(eye, eye, labels=torch.tensor([0, 1, 2]), levels=torch.tensor([[0], [0], [1]]))
    loss = LevelContrast(temperature=1.0)(table, batch)
    assert loss.item() == pytest.approx(math.log(1 + 2 / math.e) + math.log(2), rel=1e-12)


def test_one_level_takes_the_mean_of_the_logits():
    table, batch = case(LABELS[:5], None)
    labels = LABELS[:5, None].tolist()
    loss = LevelContrast(temperature=0.3)(table, batch)
    assert loss.item() == pytest.approx(loop_reference(table, labels, 0.3, (1,)), rel=1e-10)


def test_candidates_of_other_edits_play_no_part():
    table, batch = case()
    wider = add_candidates(table, replace(table.candidate, embedding=rows(6, 7)))
    assert LevelContrast()(wider, batch).item() == LevelContrast()(table, batch).item()


def test_keys_carry_a_gradient_only_where_asked():
    for stop in (True, False):
        anchor, positive = rows(6, 0).requires_grad_(), rows(6, 1).requires_grad_()
        table, batch = score_table(anchor, positive, labels=LABELS, levels=LEVELS)
        loss = LevelContrast(stop_keys=stop)(table, batch)
        gradients = torch.autograd.grad(loss, (anchor, positive), allow_unused=True)
        assert gradients[0].abs().sum() > 0
        assert (gradients[1] is None or (gradients[1] == 0).all()) == stop


def test_gradcheck_permutation_one_example_and_bfloat16():
    def loss(anchor, positive, order=slice(None)):
        labels, levels = LABELS[:4][order], LEVELS[:4][order]
        return LevelContrast(temperature=0.5, stop_keys=False)(
            *score_table(anchor[order], positive[order], labels=labels, levels=levels)
        )

    inputs = [rows(4, seed, 3).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(loss, inputs)
    assert loss(*inputs, order=[2, 0, 3, 1]).item() == pytest.approx(loss(*inputs).item(), rel=1e-12)
    one = score_table(rows(1, 0), rows(1, 1), labels=torch.tensor([3]), levels=torch.tensor([[1, 0]]))
    assert LevelContrast()(*one).item() == 0.0
    half = score_table(rows(4, 0).bfloat16(), rows(4, 1).bfloat16(), labels=LABELS[:4], levels=LEVELS[:4])
    assert LevelContrast()(*half).dtype == torch.float32


def test_weights_are_as_many_as_levels():
    data = Examples(ids=np.arange(2), columns={}, label=np.array([0, 1]), levels=np.array([[0], [0]]))
    LevelContrast(weights=[1, 2]).prepare(data, services_of([]))
    with pytest.raises(DataError, match=r"for 3 levels of labels; the data have 2 \(label, label_2\)"):
        LevelContrast(weights=[1, 1, 1]).prepare(data, services_of([]))
    with pytest.raises(RecipeError, match="no label column"):
        LevelContrast()(*score_table(torch.eye(2), torch.eye(2)))
    with pytest.raises(ValueError, match="weights"):
        LevelContrast(weights=[-1.0])
