"""Noise negatives."""

from __future__ import annotations

import math

import pytest
import torch
from edit_tables import contrast, permuted

from sentemb.edits import PARTS
from sentemb.edits.noise import Noise, non_uniformity_slope
from sentemb.maths.table import add_candidates, extra_rows, in_batch_table
from sentemb.types import Rows


def seeded(make_batch, seed: int = 0):
    return make_batch(generator=torch.Generator().manual_seed(seed))


def energy(anchor: torch.Tensor, noise: torch.Tensor, temperature: float) -> float:
    """Σ_i log Σ_k exp(cos / τ), pair by pair."""
    total = 0.0
    for h in anchor.tolist():
        inner = 0.0
        for e in noise.tolist():
            dot = sum(a * b for a, b in zip(h, e, strict=True))
            inner += math.exp(dot / math.hypot(*h) / math.hypot(*e) / temperature)
        total += math.log(inner)
    return total


def test_slope_is_that_of_the_energy(make_rows):
    anchor, noise = make_rows(3, 2).embedding, make_rows(2, 2, seed=5).embedding
    slope = non_uniformity_slope(anchor, noise, 0.3, "cosine")
    for k in range(2):
        for axis in range(2):
            step = torch.zeros_like(noise)
            step[k, axis] = 1e-6
            numeric = (energy(anchor, noise + step, 0.3) - energy(anchor, noise - step, 0.3)) / 2e-6
            torch.testing.assert_close(float(slope[k, axis]), numeric, rtol=1e-6, atol=1e-8)


def test_steps_climb_away_from_uniformity(make_table, make_batch):
    table = make_table(8, 6)
    still = Noise(count=5, steps=0)(table, seeded(make_batch)).candidate.embedding[8:]
    moved = Noise(count=5, steps=6, step_size=0.05)(table, seeded(make_batch)).candidate.embedding[8:]
    anchor = table.anchor.embedding
    assert energy(anchor, moved, 0.05) > energy(anchor, still, 0.05)
    torch.testing.assert_close(still.norm(dim=1), anchor.norm(dim=1).mean().expand(5))


def test_one_step_by_hand(make_batch):
    """Two anchors on the axes; a point goes one unit along the slope's direction."""
    rows = Rows(embedding=torch.eye(2, dtype=torch.float64), ids=torch.arange(2), text=torch.arange(2))
    table = in_batch_table(rows, rows)
    start = Noise(count=1, steps=0)(table, seeded(make_batch)).candidate.embedding[2:]
    end = Noise(count=1, steps=1, step_size=0.5, temperature=1.0)(table, seeded(make_batch)).candidate.embedding[2:]
    # one point: the energy is the sum of both cosines, (x + y) / |(x, y)|, whose slope is tangential
    x, y = start[0].tolist()
    slope = torch.tensor([y * (y - x), x * (x - y)], dtype=torch.float64)
    torch.testing.assert_close(end[0], start[0] + 0.5 * slope / slope.norm())


def test_columns_are_unknown_negatives_without_gradient(make_rows, make_batch):
    anchor, positive = make_rows(3, label=[0, 1, 2]), make_rows(3, seed=1, label=[0, 1, 2])
    anchor.embedding.requires_grad_()
    table = Noise(count=4)(in_batch_table(anchor, positive), seeded(make_batch))
    assert table.sim.shape == (3, 7)
    assert not table.positive[:, 3:].any()
    assert (table.log_weight == 0).all()
    for known in (table.candidate.ids, table.candidate.text, table.candidate.label):
        assert known[3:].tolist() == [-1] * 4
    assert not table.candidate.embedding[3:].requires_grad
    assert table.sim[:, 3:].requires_grad  # the anchors are pushed


def test_the_generator_decides(make_table, make_batch):
    table = make_table(3)
    one, two = (Noise()(table, seeded(make_batch, 1)).sim for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, Noise()(table, seeded(make_batch, 2)).sim)


def test_works_where_gradients_are_off(make_table, make_batch):
    with torch.no_grad():
        quiet = Noise()(make_table(3), seeded(make_batch)).sim
    assert torch.equal(quiet, Noise()(make_table(3), seeded(make_batch)).sim)


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    anchor, positive = make_rows(5), make_rows(5, seed=1)
    order = torch.tensor([3, 1, 0, 4, 2])
    one = Noise()(in_batch_table(anchor, positive), seeded(make_batch))
    other = Noise()(in_batch_table(permuted(anchor, order), permuted(positive, order)), seeded(make_batch))
    torch.testing.assert_close(one.sim[order][:, 5:], other.sim[:, 5:])


def test_gradient_is_that_of_constant_noise(make_rows, make_batch):
    anchor, positive = make_rows(3), make_rows(3, seed=1)
    noise = Noise(count=2)(in_batch_table(anchor, positive), seeded(make_batch)).candidate.embedding[3:]

    def loss(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        table = in_batch_table(
            Rows(embedding=a, ids=anchor.ids, text=anchor.text), Rows(embedding=p, ids=positive.ids, text=positive.text)
        )
        return contrast(add_candidates(table, extra_rows(noise, table.candidate)))

    assert torch.autograd.gradcheck(loss, [anchor.embedding.requires_grad_(), positive.embedding.requires_grad_()])
    contrast(Noise(count=2)(in_batch_table(anchor, positive), seeded(make_batch))).backward()
    leaf = anchor.embedding.detach().clone().requires_grad_()
    loss(leaf, positive.embedding.detach()).backward()
    torch.testing.assert_close(anchor.embedding.grad, leaf.grad)


def test_edges(make_table, make_batch):
    assert Noise(count=1)(make_table(1), seeded(make_batch)).sim.shape == (1, 2)
    half = Noise()(make_table(3, dtype=torch.bfloat16), seeded(make_batch))
    assert half.sim.dtype == torch.float32
    assert torch.isfinite(half.sim).all()


@pytest.mark.parametrize("bad", [{"count": 0}, {"steps": -1}, {"step_size": 0.0}, {"temperature": 0.0}])
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Noise(**bad)


def test_is_a_part():
    assert PARTS["noise"] is Noise
