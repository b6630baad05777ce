"""Mixtures of hard negatives."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from edit_tables import contrast, permuted

from sentemb.edits import PARTS
from sentemb.edits.mixed import Mixed
from sentemb.maths.table import add_candidates, in_batch_table
from sentemb.types import Rows


def seeded(make_batch, seed: int = 0):
    return make_batch(generator=torch.Generator().manual_seed(seed))


def mixtures_by_loop(table, part: Mixed, seed: int) -> list[list[float]]:
    """Equations 2 to 4 of the paper with the same random numbers, mixture by mixture."""
    n, m = table.sim.shape
    total = part.count + part.with_anchor
    drawn = torch.rand(3, n, total, generator=torch.Generator().manual_seed(seed)).tolist()
    anchor = F.normalize(table.anchor.embedding, dim=1)
    candidate = F.normalize(table.candidate.embedding, dim=1)
    result = []
    for i in range(n):
        negatives = [j for j in range(m) if not table.positive[i, j] and math.isfinite(table.log_weight[i, j])]
        pool = sorted(negatives, key=lambda j: -float(table.sim[i, j]))[: part.hardest]
        for s in range(total):
            size = len(pool)
            first = min(int(drawn[0][i][s] * size), size - 1)
            other = (first + 1 + min(int(drawn[1][i][s] * (size - 1)), size - 2)) % size if size > 1 else first
            one = candidate[pool[first]]
            share = drawn[2][i][s]
            if s >= part.count:
                one, share = anchor[i], share / 2
            result.append(F.normalize(share * one + (1 - share) * candidate[pool[other]], dim=0).tolist())
    return result


def test_equals_the_loop(make_rows, make_table, make_batch):
    table = add_candidates(make_table(5, 6), make_rows(7, 6, seed=9))
    weight = table.log_weight.clone()
    weight[0, 6] = weight[2, 8] = -math.inf
    table = replace(table, log_weight=weight)
    part = Mixed(hardest=4, count=3, with_anchor=2)
    edited = part(table, seeded(make_batch, 7))
    expected = torch.tensor(mixtures_by_loop(table, part, 7), dtype=torch.float64)
    torch.testing.assert_close(edited.candidate.embedding[12:], expected, rtol=1e-6, atol=1e-7)
    own = F.normalize(table.anchor.embedding, dim=1) @ expected.T
    torch.testing.assert_close(edited.sim[:, 12:], own, rtol=1e-6, atol=1e-7)


def test_two_by_two_by_hand(make_batch):
    """One negative a row: its mixture with itself is itself; with the anchor it lies between."""
    rows = Rows(embedding=torch.eye(2, dtype=torch.float64), ids=torch.arange(2), text=torch.arange(2))
    edited = Mixed(hardest=5, count=1, with_anchor=1)(in_batch_table(rows, rows), seeded(make_batch))
    block = torch.tensor([[0, 0, -math.inf, -math.inf], [-math.inf, -math.inf, 0, 0]], dtype=torch.float64)
    assert edited.log_weight[:, 2:].tolist() == block.tolist()
    torch.testing.assert_close(edited.candidate.embedding[2], torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert edited.sim[0, 2] == 0
    assert 0 < edited.sim[0, 3] < math.sqrt(0.5)  # β < 1/2: nearer to the negative
    assert edited.candidate.ids[2:].tolist() == edited.candidate.text[2:].tolist() == [-1] * 4


def test_mixtures_are_constants(make_rows, make_batch):
    anchor, positive = make_rows(4), make_rows(4, seed=1)
    anchor.embedding.requires_grad_()
    positive.embedding.requires_grad_()
    edited = Mixed(count=2, with_anchor=1)(in_batch_table(anchor, positive), seeded(make_batch))
    gradient = torch.autograd.grad(edited.sim[:, 4:].sum(), positive.embedding, retain_graph=True)[0]
    assert not gradient.any()
    frozen = edited.candidate.embedding[4:].detach()

    def loss(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        table = in_batch_table(
            Rows(embedding=a, ids=anchor.ids, text=anchor.text), Rows(embedding=p, ids=positive.ids, text=positive.text)
        )
        unknown = torch.full((12,), -1)
        return contrast(add_candidates(table, Rows(embedding=frozen, ids=unknown, text=unknown),
                                       log_weight=edited.log_weight[:, 4:].detach()))

    leaves = [anchor.embedding.detach().clone().requires_grad_(), positive.embedding.detach().clone().requires_grad_()]
    assert torch.autograd.gradcheck(loss, leaves)
    loss(*leaves).backward()
    contrast(edited).backward()
    torch.testing.assert_close(anchor.embedding.grad, leaves[0].grad)
    torch.testing.assert_close(positive.embedding.grad, leaves[1].grad)


def test_pool_is_that_of_the_hardest_under_a_permutation(make_rows, make_batch):
    """hardest = 1 takes chance out of the partners: the columns follow the anchors."""
    anchor, positive = make_rows(5), make_rows(5, seed=1)
    order = torch.tensor([3, 1, 0, 4, 2])
    one = Mixed(hardest=1, count=1)(in_batch_table(anchor, positive), seeded(make_batch))
    other = Mixed(hardest=1, count=1)(
        in_batch_table(permuted(anchor, order), permuted(positive, order)), seeded(make_batch)
    )
    torch.testing.assert_close(one.candidate.embedding[5:][order], other.candidate.embedding[5:])
    hardest = in_batch_table(anchor, positive).sim.masked_fill(torch.eye(5, dtype=torch.bool), -2).amax(1)
    torch.testing.assert_close(one.sim[:, 5:].diagonal(), hardest)


def test_dot_similarity_mixes_without_normalising(make_rows, make_batch):
    table = in_batch_table(make_rows(3), make_rows(3, seed=1), "dot")
    edited = Mixed(hardest=1, count=1)(table, seeded(make_batch))
    sim = table.sim.masked_fill(table.positive, -math.inf)
    torch.testing.assert_close(edited.candidate.embedding[3:], table.candidate.embedding[sim.argmax(1)])


def test_edges(make_table, make_batch):
    alone = Mixed(count=2)(make_table(1), seeded(make_batch))  # no negative to mix
    assert alone.log_weight.tolist() == [[0, -math.inf, -math.inf]]
    assert float(contrast(alone)) == 0.0
    table = make_table(3, dtype=torch.bfloat16)
    gone = Mixed(count=2, with_anchor=1)(replace(table, log_weight=torch.full((3, 3), -math.inf)), seeded(make_batch))
    assert gone.log_weight.isinf().all()
    assert torch.isfinite(Mixed()(table, seeded(make_batch)).sim).all()


@pytest.mark.parametrize("bad", [{"hardest": 0}, {"count": -1}, {"count": 0}, {"with_anchor": -1}])
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Mixed(**bad)


def test_is_a_part():
    assert PARTS["mixed"] is Mixed
