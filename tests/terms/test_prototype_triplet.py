"""prototype_triplet against a loop over classes."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates, extra_rows, score_table
from sentemb.terms import PrototypeTriplet

LABELS = [4, 4, 7, 7, 7, 9]


def rows(n=6, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(anchors, positives, labels, margin=0.5):
    table, batch = score_table(anchors, positives, labels=torch.tensor(labels))
    return PrototypeTriplet(margin=margin)(table, batch)


def unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def reference(anchors, positives, labels, margin):
    anchors, positives = ([unit(row) for row in rows.tolist()] for rows in (anchors, positives))
    total, counted = 0.0, 0
    for i, own in enumerate(labels):
        distance = {}
        for label in set(labels) - {-1}:
            members = [j for j, other in enumerate(labels) if other == label and j != i]
            members = members or [j for j, other in enumerate(labels) if other == label]
            mean = unit([sum(positives[j][k] for j in members) for k in range(len(anchors[0]))])
            distance[label] = sum((x - y) ** 2 for x, y in zip(anchors[i], mean, strict=True))
        others = [d for label, d in distance.items() if label != own]
        if own == -1 or not others:
            continue
        counted += 1
        total += max(0.0, margin + distance[own] - min(others))
    return total / max(counted, 1)


@pytest.mark.parametrize("labels", [LABELS, [1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, -1], [5, -1, -1, -1, 6, 5]])
@pytest.mark.parametrize("margin", [0.1, 0.5, 3.0])
def test_equals_the_loop(labels, margin):
    anchors, positives = rows(), rows(seed=1)
    expected = reference(anchors, positives, labels, margin)
    assert loss_of(anchors, positives, labels, margin).item() == pytest.approx(expected, rel=1e-10)


def test_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    # alone in their classes: the own distance is 0, the other one 2
    assert loss_of(eye, eye, [0, 1], margin=2.5).item() == pytest.approx(0.5)
    assert loss_of(eye, eye.flip(0), [0, 1], margin=0.5).item() == pytest.approx(2.5)


def test_order_of_examples_does_not_matter():
    anchors, positives, order = rows(), rows(seed=1), [3, 0, 5, 1, 4, 2]
    moved = loss_of(anchors[order], positives[order], [LABELS[i] for i in order]).item()
    assert moved == pytest.approx(loss_of(anchors, positives, LABELS).item(), rel=1e-12)


def test_gradcheck():
    embeddings = [rows().requires_grad_(), rows(seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda *both: loss_of(*both, LABELS, margin=3.0), embeddings)


@pytest.mark.parametrize("labels", [[3] * 6, [-1] * 6, [3, -1, 3, -1, 3, 3]])
def test_one_known_class_is_zero_with_a_zero_gradient(labels):
    anchors = rows().requires_grad_()
    loss = loss_of(anchors, rows(seed=1), labels)
    loss.backward()
    assert loss.item() == 0
    assert (anchors.grad == 0).all()


def test_candidates_of_unknown_class_change_nothing():
    table, batch = score_table(rows(), rows(seed=1), labels=torch.tensor(LABELS))
    more = add_candidates(table, extra_rows(rows(3, seed=2), table.candidate))
    term = PrototypeTriplet()
    assert term(more, batch).item() == term(table, batch).item()


def test_autocast_changes_no_bit():
    anchors, positives = rows().float(), rows(seed=1).float()
    expected = loss_of(anchors, positives, LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss_of(anchors, positives, LABELS), expected)


def test_half_precision_and_refusals():
    half = rows().bfloat16()
    assert loss_of(half, half, LABELS).dtype == torch.float32
    with pytest.raises(ValueError, match="margin"):
        PrototypeTriplet(margin=0.0)
    table, batch = score_table(rows(), rows(seed=1))
    with pytest.raises(RecipeError, match="no label column"):
        PrototypeTriplet()(table, batch)
