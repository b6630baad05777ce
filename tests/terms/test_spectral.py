"""spectral against a loop over pairs, and its gradient where rows are cut to the largest length."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sentemb.maths.table import score_table
from sentemb.terms import Spectral


def rows(n=4, d=3, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(n, d, generator=generator, dtype=torch.float64)


def reference(anchors, candidates, positive, weight, maximum):
    def cut(row):
        length = math.sqrt(sum(float(x) ** 2 for x in row))
        return [float(x) * min(1.0, math.sqrt(maximum) / length) for x in row]

    first, second = [cut(row) for row in anchors], [cut(row) for row in candidates]
    product = [[sum(x * y for x, y in zip(one, other, strict=True)) for other in second] for one in first]
    n, m = len(first), len(second)
    pull = sum(sum(product[i][p] for p in positive[i]) / len(positive[i]) for i in range(n)) / n
    pairs = [(i, j) for i in range(n) for j in range(m) if j not in positive[i]]
    total = sum(weight[i][j] for i, j in pairs)
    push = sum(weight[i][j] * product[i][j] ** 2 for i, j in pairs) / total if total else 0.0
    return (push - 2 * pull) / maximum


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("maximum", [0.5, 1.0, 9.0])
def test_equals_the_loop(similarity, maximum):
    anchors, candidates = rows(), rows(seed=1)
    table, batch = score_table(anchors, candidates, similarity=similarity)
    weight = torch.tensor([[1.0, 2.0, 1.0, 0.0], [1.0] * 4, [0.0, 3.0, 1.0, 1.0], [1.0] * 4], dtype=torch.float64)
    positive = table.positive.clone()
    positive[3, 0] = True
    table = replace(table, log_weight=weight.log(), positive=positive)
    expected = reference(anchors, candidates, [[0], [1], [2], [3, 0]], weight.tolist(), maximum)
    assert Spectral(maximum=maximum)(table, batch).item() == pytest.approx(expected, rel=1e-12)


def test_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    assert Spectral()(eye, eye).item() == pytest.approx(-2.0)  # found positives, orthogonal negatives: the minimum
    assert Spectral()(eye, torch.ones(2, 2, dtype=torch.float64)).item() == pytest.approx(0.5 - math.sqrt(2))


def test_order_of_examples_does_not_matter():
    anchors, positives, order = rows(), rows(seed=1), torch.tensor([2, 0, 3, 1])
    expected = Spectral()(anchors, positives).item()
    assert Spectral()(anchors[order], positives[order]).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [0.3, 3.0])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_gradcheck_within_and_beyond_the_largest_length(size, similarity):
    embeddings = [rows(3, size=size).requires_grad_(), rows(3, seed=1, size=size).requires_grad_()]
    assert torch.autograd.gradcheck(lambda *both: Spectral()(*both, similarity=similarity), embeddings)


def test_an_orthogonal_negative_gets_no_gradient_and_a_removed_pair_none():
    table, batch = score_table(rows(3), rows(3, seed=1))
    sim = torch.tensor([[0.5, 0.0, 0.4], [0.3, 0.9, 0.2], [0.1, 0.7, 0.6]], dtype=torch.float64, requires_grad=True)
    weight = torch.zeros(3, 3, dtype=torch.float64)
    weight[2, 0] = -math.inf
    Spectral()(replace(table, sim=sim, log_weight=weight), batch).backward()
    assert sim.grad[0, 1] == sim.grad[2, 0] == 0
    assert sim.grad[0, 2] > 0 > sim.grad[0, 0]


def test_edges():
    alone = torch.tensor([[3.0, 4.0]], requires_grad=True)
    loss = Spectral()(alone, torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(-1.2)
    loss.backward()
    assert torch.isfinite(alone.grad).all()
    zero = torch.zeros(3, 2, requires_grad=True)
    Spectral()(zero, torch.ones(3, 2)).backward()
    assert torch.isfinite(zero.grad).all()
    half = rows(5).bfloat16()
    assert Spectral()(half, half).dtype == torch.float32
    table, batch = score_table(rows(3), rows(3, seed=1))
    lonely = Spectral()(replace(table, positive=torch.zeros_like(table.positive)), batch)
    assert lonely.item() == math.inf


def test_autocast_changes_no_bit():
    expected = Spectral()(rows().float(), rows(seed=1).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Spectral()(rows().float(), rows(seed=1).float()), expected)


def test_refuses_no_length():
    with pytest.raises(ValueError, match="maximum"):
        Spectral(maximum=0.0)
