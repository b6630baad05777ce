"""softmax_nli against a loop, by hand, and at its edges."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_module import services_of

from sentemb.errors import DataError, RecipeError
from sentemb.maths.table import narrow_table, score_table
from sentemb.terms import SoftmaxNLI
from sentemb.types import Examples


@pytest.fixture
def bound(build_for):
    def make(classes=3, width=4):
        torch.manual_seed(0)
        term = SoftmaxNLI(classes=classes)
        term.bind(build_for(width=width))
        return term.double()

    return make


def rows(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop_reference(term, anchor, positive, labels):
    losses = []
    weight, bias = term.classifier.weight.tolist(), term.classifier.bias.tolist()
    for u, v, label in zip(anchor.tolist(), positive.tolist(), labels, strict=True):
        if label >= 0:
            features = [*u, *v, *(abs(a - b) for a, b in zip(u, v, strict=True))]
            logits = [sum(w * x for w, x in zip(row, features, strict=True)) + b
                      for row, b in zip(weight, bias, strict=True)]
            losses.append(math.log(sum(map(math.exp, logits))) - logits[label])
    return sum(losses) / len(losses)


def test_equals_the_loop(bound):
    term, anchor, positive = bound(), rows(4, 4, 0), rows(4, 4, 1)
    table, batch = score_table(anchor, positive, labels=torch.tensor([2, 0, -1, 1]))
    assert term(table, batch).item() == pytest.approx(loop_reference(term, anchor, positive, [2, 0, -1, 1]), rel=1e-10)


def test_hand_worked(bound):
    term = bound(classes=2, width=1)
    with torch.no_grad():
        term.classifier.weight[:] = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
        term.classifier.bias[:] = 0
    # |1 - 3| = 2: log(1 + e^-2)
    table, batch = score_table(torch.tensor([[1.0]]), torch.tensor([[3.0]]), labels=torch.tensor([0]))
    assert term(table, batch).item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)


def test_leading_dimensions_have_leading_weights(bound):
    term = bound()
    table, batch = score_table(rows(3, 4, 0), rows(3, 4, 1), labels=torch.tensor([2, 0, 1]))
    emptied = replace(
        table, anchor=replace(table.anchor, embedding=table.anchor.embedding * torch.tensor([1, 1, 0, 0])),
        candidate=replace(table.candidate, embedding=table.candidate.embedding * torch.tensor([1, 1, 0, 0])),
    )
    assert term(narrow_table(table, 2), batch).item() == pytest.approx(term(emptied, batch).item(), rel=1e-12)


def test_gradcheck_permutation_and_unknown_classes(bound):
    term, labels, order = bound(), torch.tensor([2, 0, 1]), [2, 0, 1]
    anchor, positive = rows(3, 4, 0).requires_grad_(), rows(3, 4, 1).requires_grad_()

    def loss(a, b, label=labels):
        return term(*score_table(a, b, labels=label))

    assert torch.autograd.gradcheck(loss, (anchor, positive))
    turned = loss(anchor[order], positive[order], labels[order])
    assert turned.item() == pytest.approx(loss(anchor, positive).item(), rel=1e-12)
    assert loss(anchor, positive, torch.full((3,), -1)).item() == 0
    assert loss(anchor.bfloat16(), positive.bfloat16()).dtype == torch.float32


def test_labels_that_the_classifier_lacks_are_refused(bound):
    term = bound()
    with pytest.raises(DataError, match=r"row 2 has the label 3; with classes = 3 labels are 0 to 2"):
        term.prepare(Examples(ids=np.arange(2), columns={}, label=np.array([0, 3])), services_of([]))
    with pytest.raises(RecipeError, match="no label column"):
        term(*score_table(torch.eye(4), torch.eye(4)))
    with pytest.raises(ValueError, match="classes"):
        SoftmaxNLI(classes=1)
