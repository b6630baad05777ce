"""Making and widening the score table."""

from __future__ import annotations

import pytest
import torch

from sentemb.maths.similarity import pairwise
from sentemb.maths.table import (
    add_candidates,
    concatenate_rows,
    in_batch_table,
    with_anchors,
    with_candidates,
)
from sentemb.types import Rows


def rows(count, start, label=None):
    generator = torch.Generator().manual_seed(start)
    ids = torch.arange(start, start + count)
    return Rows(embedding=torch.randn(count, 4, generator=generator), ids=ids, text=ids + 1000, label=label)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_own_candidate_is_the_positive(similarity):
    anchor, candidate = rows(3, 0), rows(3, 10)
    table = in_batch_table(anchor, candidate, similarity)
    assert torch.equal(table.positive, torch.eye(3, dtype=torch.bool))
    assert torch.equal(table.log_weight, torch.zeros(3, 3))
    assert torch.equal(table.sim, pairwise(anchor.embedding, candidate.embedding, similarity))
    assert table.similarity == similarity


def test_added_candidates_are_negatives_of_weight_one_in_the_tables_similarity():
    table = in_batch_table(rows(3, 0), rows(3, 10), "dot")
    extra = rows(2, 20)
    wide = add_candidates(table, extra)
    assert wide.sim.shape == (3, 5)
    assert torch.equal(wide.sim[:, 3:], pairwise(table.anchor.embedding, extra.embedding, "dot"))
    assert not wide.positive[:, 3:].any()
    assert (wide.log_weight[:, 3:] == 0).all()
    assert wide.candidate.ids.tolist() == [10, 11, 12, 20, 21]
    assert wide.candidate.text.tolist() == [1010, 1011, 1012, 1020, 1021]
    assert table.sim.shape == (3, 3)  # the given table is untouched


def test_added_candidates_may_be_positive_and_weighted():
    table = in_batch_table(rows(2, 0), rows(2, 10))
    positive, weight = torch.tensor([[True], [False]]), torch.tensor([[0.5], [-float("inf")]], dtype=torch.float64)
    wide = add_candidates(table, rows(1, 20), positive=positive, log_weight=weight)
    assert wide.positive[:, 2].tolist() == [True, False]
    assert wide.log_weight[:, 2].tolist() == [0.5, -float("inf")]
    assert wide.log_weight.dtype == table.log_weight.dtype


def test_gradients_reach_added_rows():
    extra = rows(2, 20)
    extra.embedding.requires_grad_()
    add_candidates(in_batch_table(rows(2, 0), rows(2, 10)), extra).sim.sum().backward()
    assert (extra.embedding.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_other_anchors_and_candidates_are_compared_anew(similarity):
    wide = add_candidates(in_batch_table(rows(3, 0), rows(3, 10), similarity), rows(2, 20))
    for moved in (with_anchors(wide, rows(3, 30)), with_candidates(wide, rows(3, 30))):
        expected = pairwise(moved.anchor.embedding, moved.candidate.embedding, similarity)
        torch.testing.assert_close(moved.sim, expected)
        assert torch.equal(moved.positive, wide.positive)
    assert with_anchors(wide, rows(3, 30)).anchor.ids.tolist() == [30, 31, 32]
    assert with_candidates(wide, rows(3, 30)).candidate.ids.tolist() == [30, 31, 32, 20, 21]


def test_labels_survive_only_where_both_have_them():
    labelled, other = rows(2, 0, torch.tensor([4, 5])), rows(1, 10, torch.tensor([6]))
    assert concatenate_rows(labelled, other).label.tolist() == [4, 5, 6]
    assert concatenate_rows(labelled, rows(1, 10)).label is None
    assert concatenate_rows(labelled, other).embedding.shape == (3, 4)
    assert len(concatenate_rows(labelled, other)) == 3
