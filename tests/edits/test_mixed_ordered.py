"""mixed_ordered: mixtures whose labels are what they should be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sentemb.edits import MixedOrdered
from sentemb.errors import RecipeError
from sentemb.terms import SupervisedContrast

LABELS = [1, 2, 3, 5, 3]


def seeded(make_batch, seed=0):
    return make_batch(generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def table(make_table):
    """Unit rows that are a base of the space, so that a mixture shows what it was made of."""
    made = make_table(5, 5, label=LABELS)
    rows = {
        name: replace(getattr(made, name), embedding=torch.eye(5, dtype=torch.float64))
        for name in ("anchor", "candidate")
    }
    return replace(made, **rows)


def test_every_mixture_is_of_allowed_rows_with_the_right_parts(table, make_batch):
    part = MixedOrdered(count=4, window=2.0)
    edited = part(table, seeded(make_batch, 6))
    assert edited.sim.shape == (5, 5 + 2 * 5 * 4)
    for i in range(5):
        for column in range(5 + i * 4, 5 + (i + 1) * 4):  # hard negatives: λ of the anchor, 1 - λ of another label
            row = edited.candidate.embedding[column]
            other = [k for k in range(5) if k != i and float(row[k]) > 0]
            assert len(other) == 1
            assert LABELS[other[0]] != LABELS[i]
            away = float(row[other[0]] / row.sum())
            distance = away * abs(LABELS[other[0]] - LABELS[i])
            assert float(edited.log_weight[i, column]) == pytest.approx(math.log(distance + 1), rel=1e-5)
            assert not edited.positive[:, column].any()
        own = range(25 + i * 4, 25 + (i + 1) * 4)
        if LABELS[i] in (1, 5):  # nothing lies on both sides
            assert all(edited.log_weight[i, column] == -math.inf for column in own)
            continue
        for column in own:
            row = edited.candidate.embedding[column] / edited.candidate.embedding[column].sum()
            assert sum(float(row[k]) * LABELS[k] for k in range(5)) == pytest.approx(LABELS[i], rel=1e-6)
            assert all(abs(LABELS[k] - LABELS[i]) <= 2 for k in range(5) if float(row[k]) > 0)
            assert edited.positive[i, column]
    others = edited.log_weight[:, 5:].view(5, 2, 5, 4)
    for i in range(5):
        assert (others[i, :, [k for k in range(5) if k != i]] == -math.inf).all()


def test_equal_labels_make_no_mixture(make_table, make_batch):
    table = make_table(4, label=[2, 2, 2, 2])
    edited = MixedOrdered(count=3)(table, seeded(make_batch))
    assert (edited.log_weight[:, 4:] == -math.inf).all()
    torch.testing.assert_close(SupervisedContrast()(edited, make_batch()), SupervisedContrast()(table, make_batch()))


def test_mixtures_are_constants_of_unit_length(make_table, make_batch):
    table = make_table(5, label=LABELS)
    embedding = table.candidate.embedding.clone().requires_grad_()
    edited = MixedOrdered(count=2)(
        replace(table, candidate=replace(table.candidate, embedding=embedding)), seeded(make_batch)
    )
    mixtures = edited.candidate.embedding[5:]
    torch.testing.assert_close(mixtures.norm(dim=1), torch.ones(20, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert torch.autograd.grad(mixtures.sum(), embedding, allow_unused=True)[0].abs().sum() == 0
    torch.testing.assert_close(
        edited.sim[:, 5:], F.normalize(table.anchor.embedding, dim=1) @ mixtures.detach().T, rtol=1e-6, atol=1e-6
    )


def test_edges_and_refusals(make_table, make_batch):
    alone = MixedOrdered(count=2)(make_table(1, label=[3]), seeded(make_batch))
    assert (alone.log_weight[:, 1:] == -math.inf).all()
    unknown = MixedOrdered(count=2)(make_table(3, label=[-1, -1, 4]), seeded(make_batch))
    assert (unknown.log_weight[:, 3:] == -math.inf).all()
    with pytest.raises(RecipeError, match="no label column"):
        MixedOrdered()(make_table(2), seeded(make_batch))
    with pytest.raises(ValueError, match="window"):
        MixedOrdered(window=0.0)
