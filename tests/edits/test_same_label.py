"""Positives from labels."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import contrast, permuted

from sentemb.edits import PARTS
from sentemb.edits.given import Given
from sentemb.edits.same_label import SameLabel
from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates, in_batch_table
from sentemb.types import Rows


def test_equals_the_loop(make_rows, make_batch):
    label = [0, 1, 0, -1, -1, 2, 1]
    table = in_batch_table(make_rows(7, label=label), make_rows(7, seed=1, label=label))
    table = add_candidates(table, make_rows(3, seed=2, label=[2, -1, 0]))
    edited = SameLabel()(table, make_batch())
    columns = [*label, 2, -1, 0]
    expected = [[i == j or (label[i] == columns[j] != -1) for j in range(10)] for i in range(7)]
    assert edited.positive.tolist() == expected
    assert edited.log_weight is table.log_weight


def test_two_by_two_by_hand(make_rows, make_batch):
    same, other = make_rows(2, label=[3, 3]), make_rows(2, label=[3, 4])
    assert SameLabel()(in_batch_table(same, same), make_batch()).positive.tolist() == [[True, True], [True, True]]
    assert SameLabel()(in_batch_table(other, other), make_batch()).positive.tolist() == [[True, False], [False, True]]


def test_given_negatives_stay_negatives(make_rows, make_batch):
    labelled = make_rows(2, label=[3, 3])
    table = Given()(in_batch_table(labelled, labelled), make_batch({"negative_1": make_rows(2, seed=1, label=[3, 3])}))
    assert SameLabel()(table, make_batch()).positive.tolist() == [[True, True, False, False]] * 2


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    rows, other = make_rows(4, label=[0, 1, 0, 1]), make_rows(4, seed=1, label=[0, 1, 0, 1])
    order = torch.tensor([2, 3, 1, 0])
    one = SameLabel()(in_batch_table(rows, other), make_batch())
    two = SameLabel()(in_batch_table(permuted(rows, order), permuted(other, order)), make_batch())
    assert one.positive[order][:, order].tolist() == two.positive.tolist()


def test_gradcheck(make_rows, make_batch):
    anchor, positive = make_rows(4, label=[0, 1, 0, 1]), make_rows(4, seed=1, label=[0, 1, 0, 1])

    def loss(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        table = in_batch_table(Rows(embedding=a, ids=anchor.ids, text=anchor.text, label=anchor.label),
                            Rows(embedding=p, ids=positive.ids, text=positive.text, label=positive.label))
        return contrast(SameLabel()(table, make_batch()))

    assert torch.autograd.gradcheck(loss, [anchor.embedding.requires_grad_(), positive.embedding.requires_grad_()])


def test_edges(make_rows, make_batch):
    one = make_rows(1, label=[0], dtype=torch.bfloat16)
    assert SameLabel()(in_batch_table(one, one), make_batch()).positive.tolist() == [[True]]
    rows = make_rows(2, label=[0, 0])
    gone = replace(in_batch_table(rows, rows), log_weight=torch.full((2, 2), -math.inf))
    assert SameLabel()(gone, make_batch()).log_weight.isinf().all()  # removed stays removed
    with pytest.raises(RecipeError, match="no label column"):
        SameLabel()(in_batch_table(make_rows(2), make_rows(2)), make_batch())


def test_is_a_part():
    assert PARTS["same_label"] is SameLabel
    assert SameLabel.needs == {"labels"}
