"""moved: shifted and shaken rows against their formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sentemb.companions.centre import Centre
from sentemb.edits import Moved
from sentemb.errors import RecipeError
from sentemb.maths.similarity import pairwise


def seeded(make_batch, seed=0, **fields):
    return make_batch(generator=torch.Generator().manual_seed(seed), **fields)


def centre_at(vector):
    companion = Centre()
    companion.register_buffer("vector", vector)
    return {"centre": companion}


def test_noise_equals_the_loop(make_table, make_batch):
    table = make_table(3, 4)
    edited = Moved(noise=0.3)(table, seeded(make_batch, 5))
    generator = torch.Generator().manual_seed(5)
    for before, after in ((table.anchor, edited.anchor), (table.candidate, edited.candidate)):
        drawn = torch.rand(3, 4, generator=generator)
        for row, moved, v in zip(before.embedding, after.embedding, drawn, strict=True):
            unit = [float(x) / float(row.norm()) for x in row]
            length = math.sqrt(sum(float(x) ** 2 for x in v))
            shaken = [u + 0.3 * math.copysign(1, u) * float(x) / length for u, x in zip(unit, v, strict=True)]
            norm = math.sqrt(sum(x * x for x in shaken))
            assert moved.tolist() == pytest.approx([x / norm for x in shaken], rel=1e-6)
    torch.testing.assert_close(edited.sim, pairwise(edited.anchor.embedding, edited.candidate.embedding, "cosine"))


def test_noise_keeps_its_promised_cosine(make_table, make_batch):
    table = make_table(50, 8)
    edited = Moved(noise=0.5)(table, seeded(make_batch))
    cosine = F.cosine_similarity(table.anchor.embedding, edited.anchor.embedding)
    assert (cosine >= 1 / math.sqrt(1.25) - 1e-6).all()
    assert (cosine < 1).all()


def test_a_centre_by_hand(make_table, make_batch):
    table = make_table(2, 2)
    embedding = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    table = replace(table, anchor=replace(table.anchor, embedding=embedding))
    batch = make_batch(companions=centre_at(torch.tensor([0.5, 0.5])))
    expected = torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64) / math.sqrt(0.5)
    torch.testing.assert_close(Moved(centre=True)(table, batch).anchor.embedding, expected)


def test_a_centre_of_zero_changes_no_similarity(make_table, make_batch):
    table = make_table(4, 6)
    edited = Moved(centre=True)(table, make_batch(companions=centre_at(torch.zeros(6))))
    torch.testing.assert_close(edited.sim, table.sim)


def test_gradient_reaches_both_sides(make_rows, make_table, make_batch):
    companions = centre_at(torch.full((4,), 0.1))

    def similarities(a, c):
        table = make_table(3)
        table = replace(
            table, anchor=replace(table.anchor, embedding=a), candidate=replace(table.candidate, embedding=c)
        )
        return Moved(centre=True, noise=0.2)(table, seeded(make_batch, companions=companions)).sim

    rows = [make_rows(3, seed=seed).embedding.requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(similarities, rows)


def test_edges_and_refusals(make_table, make_batch):
    half = Moved(noise=0.1)(make_table(1, dtype=torch.bfloat16), seeded(make_batch))
    assert half.sim.dtype == torch.float32
    with pytest.raises(ValueError, match="move nothing"):
        Moved()
    with pytest.raises(RecipeError, match="allowed: cosine"):
        Moved(noise=0.1)(replace(make_table(2), similarity="dot"), seeded(make_batch))
    with pytest.raises(RecipeError, match='needs the companion "centre"'):
        Moved(centre=True)(make_table(2), make_batch())
