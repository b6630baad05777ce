"""cluster_negatives against a loop, and what its columns do to a loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import contrast, permuted
from tiny_module import TinyModule, build_of

from sentemb.companions import Clusters
from sentemb.edits import ClusterNegatives
from sentemb.errors import RecipeError
from sentemb.maths.similarity import pairwise
from sentemb.maths.table import in_batch_table, narrow_table
from sentemb.types import UNKNOWN


def clusters_of(centroids=None):
    companion = Clusters(count=3)
    companion.bind(build_of(TinyModule()))
    companion.double()
    companion.centroids.copy_(torch.randn(3, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
                              if centroids is None else torch.tensor(centroids))
    companion.started.fill_(1)
    return companion


def cosine(a, b):
    a, b = a.tolist(), b.tolist()
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_equals_the_loop(make_table, make_batch):
    companion, table = clusters_of(), make_table(5, label=[0, 1, 2, 3, 4])
    edited = ClusterNegatives()(table, make_batch(companions={"clusters": companion}))
    assert edited.sim.shape == (5, 10)
    for j in range(5):
        ranked = sorted(range(3), key=lambda k: -cosine(table.anchor.embedding[j], companion.centroids[k]))
        for i in range(5):
            expected = cosine(table.anchor.embedding[i], companion.centroids[ranked[1]])
            assert edited.sim[i, 5 + j].item() == pytest.approx(expected, rel=1e-12)
    assert not edited.positive[:, 5:].any()
    assert not edited.log_weight.any()
    for known in (edited.candidate.ids, edited.candidate.text, edited.candidate.label):
        assert known[5:].tolist() == [UNKNOWN] * 5
    torch.testing.assert_close(edited.sim, pairwise(table.anchor.embedding, edited.candidate.embedding, "cosine"))
    assert narrow_table(edited, 2).sim.shape == (5, 10)


def test_by_hand(make_rows, make_batch):
    axes = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    rows = replace(make_rows(2), embedding=torch.tensor([[2.0, 1, 0, 0], [0, 1, 3, 0]], dtype=torch.float64))
    edited = ClusterNegatives()(in_batch_table(rows, rows), make_batch(companions={"clusters": clusters_of(axes)}))
    assert edited.candidate.embedding[2:].tolist() == [axes[1], axes[1]]
    torch.testing.assert_close(edited.sim[:, 2], torch.tensor([5**-0.5, 10**-0.5], dtype=torch.float64))


def test_no_column_until_the_companion_starts(make_table, make_batch):
    companion, table = clusters_of(), make_table(4)
    companion.started.fill_(0)
    assert ClusterNegatives()(table, make_batch(companions={"clusters": companion})) is table


def test_columns_take_no_gradient_and_anchors_do(make_rows, make_batch):
    batch, candidate = make_batch(companions={"clusters": clusters_of()}), make_rows(4, seed=1)

    def loss(embedding):
        anchor = replace(make_rows(4), embedding=embedding)
        return contrast(ClusterNegatives()(in_batch_table(anchor, candidate), batch))

    rows = make_rows(4).embedding.requires_grad_()
    assert torch.autograd.gradcheck(loss, (rows,))
    edited = ClusterNegatives()(in_batch_table(replace(make_rows(4), embedding=rows), candidate), batch)
    assert not edited.candidate.embedding.requires_grad


def test_order_of_examples_does_not_matter(make_rows, make_batch):
    anchor, candidate = make_rows(5), make_rows(5, seed=1)
    batch, order = make_batch(companions={"clusters": clusters_of()}), torch.tensor([3, 0, 1, 4, 2])
    edited = ClusterNegatives()(in_batch_table(anchor, candidate), batch)
    moved = ClusterNegatives()(in_batch_table(permuted(anchor, order), permuted(candidate, order)), batch)
    torch.testing.assert_close(moved.sim, edited.sim[order][:, torch.cat([order, order + 5])])


def test_edges(make_table, make_batch):
    batch = make_batch(companions={"clusters": clusters_of()})
    assert ClusterNegatives()(make_table(1), batch).sim.shape == (1, 2)
    half = ClusterNegatives()(make_table(3, dtype=torch.bfloat16), batch)
    assert half.sim.dtype == torch.float32
    removed = make_table(3)
    removed = replace(removed, log_weight=torch.full_like(removed.log_weight, -math.inf))
    edited = ClusterNegatives()(removed, batch)
    assert (edited.log_weight[:, :3] == -math.inf).all()
    assert (edited.log_weight[:, 3:] == 0).all()


def test_says_which_companion_it_needs(make_table, make_batch):
    with pytest.raises(RecipeError, match='needs the companion "clusters"'):
        ClusterNegatives()(make_table(3), make_batch())
