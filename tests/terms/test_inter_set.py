"""inter_set against loops over sets, by hand, and at its edges."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sentemb.errors import DataError, RecipeError
from sentemb.maths.table import score_table
from sentemb.terms import InterSet
from sentemb.types import Examples, Services


def loss_of(rows, label, **settings):
    table, batch = score_table(rows, rows, labels=torch.tensor(label))
    return InterSet(**settings)(table, batch)


def reference(rows, label, temperature):
    unit = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows.tolist()]
    total = 0.0
    for own in set(label) - {-1}:
        pairs = [
            math.exp(sum(a * b for a, b in zip(unit[m], unit[n], strict=True)) / temperature)
            for m in range(len(label)) for n in range(len(label)) if label[m] == own and label[n] not in (own, -1)
        ]
        total += math.log(sum(pairs))
    return total


@pytest.fixture
def rows():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("label", [[0, 0, 1, 1, 2, 2], [5, 5, 5, 5, 5, 3], [0, -1, 1, -1, 0, 1], [0, 1, 2, 3, 4, 5]])
def test_equals_the_loop(rows, label):
    assert loss_of(rows, label, temperature=0.4).item() == pytest.approx(reference(rows, label, 0.4), rel=1e-12)


def test_sets_of_one_are_the_rows_without_their_own_cell(rows):
    table, batch = score_table(rows, rows, labels=torch.arange(6))
    logits = (table.sim / 0.05).masked_fill(torch.eye(6, dtype=torch.bool), -math.inf)
    assert InterSet()(table, batch).item() == pytest.approx(logits.logsumexp(1).sum().item(), rel=1e-12)


def test_by_hand():
    # one pair, of cosine 0.6: each of two sets counts exp(0.6 / 0.5) once
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert loss_of(rows, [7, 9], temperature=0.5).item() == pytest.approx(2.4)


def test_order_of_examples_does_not_matter(rows):
    label, order = [0, 0, 1, 1, 2, -1], [3, 5, 0, 2, 4, 1]
    moved = loss_of(rows[order], [label[i] for i in order])
    assert moved.item() == pytest.approx(loss_of(rows, label).item(), rel=1e-12)


def test_gradcheck(rows):
    label = [0, 1, 0, -1, 2, 2]
    assert torch.autograd.gradcheck(lambda r: loss_of(r, label, temperature=0.5), (rows.requires_grad_(),))


def test_sentences_are_pushed_across_sets_only():
    # two sentences of a set, both at right angles to the one of another set
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]], requires_grad=True)
    loss_of(rows, [0, 0, 1], temperature=1.0).backward()
    assert (rows.grad[0, :2].abs() < 1e-6).all()  # nothing along its own set
    assert rows.grad[0, 2] > 0
    unlabelled = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss_of(unlabelled, [0, -1, 1]).backward()
    assert not unlabelled.grad[1].any()


def test_a_batch_of_one_set_is_zero_without_gradient(rows):
    rows.requires_grad_()
    for label in ([3] * 6, [-1] * 6):
        loss = loss_of(rows, label)
        loss.backward()
        assert loss.item() == 0.0
        assert not rows.grad.any()


def test_equal_rows_in_bfloat16_are_finite():
    rows = torch.ones(4, 8, dtype=torch.bfloat16)
    loss = loss_of(rows, [0, 0, 1, 1], temperature=0.01)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2 * (100 + math.log(4)), rel=1e-4)


@pytest.mark.parametrize("label", [None, [4, 4, -1]])
def test_data_of_one_set_are_refused(label):
    label = None if label is None else np.array(label)
    services = Services(embed=None, nearest=None, decode=None, say=print)
    with pytest.raises(DataError, match="at least two labels"):
        InterSet().prepare(Examples(ids=np.arange(3), columns={}, label=label), services)


def test_missing_labels_are_told(rows):
    table, batch = score_table(rows, rows)
    bare = replace(batch, views={name: replace(view, label=None) for name, view in batch.views.items()})
    with pytest.raises(RecipeError, match="no label column"):
        InterSet()(table, bare)
    assert InterSet().needs == {"labels"}
