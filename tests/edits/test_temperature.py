"""temperature: its policies against loops, their limits, and what they mean for a loss."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sentemb.companions.per_example import PerExample
from sentemb.edits import RowTemperature
from sentemb.errors import RecipeError
from sentemb.maths.table import in_batch_table
from sentemb.terms import Decoupled, InfoNCE
from sentemb.types import Examples


def test_alignment_by_hand(make_table, make_batch):
    sim = torch.tensor([[0.8, 0.1], [0.3, 0.6]], dtype=torch.float64)
    edited = RowTemperature(policy="alignment", alpha=0.5, start=0.5)(replace(make_table(2), sim=sim), make_batch())
    assert edited.scale.tolist() == pytest.approx([1.1, 1.1])  # 1 + 0.5 (0.7 - 0.5)


def test_alignment_without_alpha_changes_no_bit_of_the_loss(make_table, make_batch):
    table = make_table(4)
    edited = RowTemperature(policy="alignment", alpha=0.0)(table, make_batch())
    assert InfoNCE()(edited, make_batch()).item() == InfoNCE()(table, make_batch()).item()


def test_macl_is_alignment_and_decoupled(make_table, make_batch):
    """τ = τ₀ (1 + α (A - A₀)),  L = mean_i( -V_i log P_i ),  V_i = 1 / (1 - P_i): all but log P is constant."""
    sim = make_table(6).sim.clone().requires_grad_()
    temperature = 0.3 * (1 + 0.5 * (float(sim.detach().diagonal().mean()) - 0.2))
    p = torch.softmax(sim / temperature, dim=1).diagonal()
    expected = torch.autograd.grad((-(1 / (1 - p)).detach() * p.log()).mean(), sim)[0]
    edit, batch = RowTemperature(policy="alignment", alpha=0.5, start=0.2), make_batch()
    loss = Decoupled(temperature=0.3)(edit(replace(make_table(6), sim=sim), batch), batch)
    torch.testing.assert_close(torch.autograd.grad(loss, sim)[0], expected)


@pytest.mark.parametrize(("step", "factor"), [(0, 2.0), (25, 1.25), (50, 0.5), (100, 2.0)])
def test_cosine_schedule(make_table, make_batch, step, factor):
    edit = RowTemperature(policy="cosine", low=0.5, high=2.0, period=100)
    assert edit(make_table(3), make_batch(step=step)).scale.tolist() == pytest.approx([factor] * 3)


def divergence(table, i, factor, temperature):
    """KL of row i's softmax over its live negatives from their weights, with plain numbers."""
    live = [j for j in range(table.sim.shape[1]) if not table.positive[i, j] and math.isfinite(table.log_weight[i, j])]
    weight = [math.exp(table.log_weight[i, j]) for j in live]
    tilted = [w * math.exp(float(table.sim[i, j]) / (temperature * factor)) for w, j in zip(weight, live, strict=True)]
    q, p = ([x / sum(entries) for x in entries] for entries in (tilted, weight))
    return sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))


def test_spread_solves_every_row(make_table, make_batch):
    table = make_table(8, 16)
    weight = torch.rand(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[0, 3] = -math.inf
    table = replace(table, log_weight=weight)
    edited = RowTemperature(policy="spread", rho=0.3, temperature=0.1, low=0.01, high=100.0)(table, make_batch())
    for i, factor in enumerate(edited.scale.tolist()):
        assert divergence(table, i, factor, 0.1) == pytest.approx(0.3, rel=1e-3)


def test_spread_of_a_row_that_cannot_reach_it_is_the_lowest(make_table, make_batch):
    table = replace(make_table(4), sim=torch.full((4, 4), 0.5, dtype=torch.float64))  # all alike at any temperature
    edit = RowTemperature(policy="spread", rho=0.4, low=0.25)
    assert edit(table, make_batch()).scale.tolist() == [0.25] * 4
    assert edit(make_table(1), make_batch()).scale.tolist() == [1.0]  # no negative: nothing to spread


def test_the_gradient_of_isogclrs_temperature_is_rho_minus_that_divergence(make_table):
    """F = τ log mean_N exp(h / τ) + τ ρ,  h = s_ij - s_ip:  dF/dτ = ρ - KL(softmax_N ‖ uniform)."""
    table = make_table(6, 16)
    for i in range(6):
        tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        h = torch.stack([table.sim[i, j] - table.sim[i, i] for j in range(6) if j != i])
        (tau * ((h / tau).exp().mean().log() + 0.4)).backward()
        assert tau.grad.item() == pytest.approx(0.4 - divergence(table, i, 1.0, 0.2), rel=1e-9)


def test_memory_is_the_examples_own_temperature(make_rows, make_batch):
    companion = PerExample(tau_init=0.2)
    companion.prepare(Examples(ids=np.arange(5, dtype=np.int64), columns={}), None)
    companion.tau[3] = 0.4
    rows = make_rows(3, ids=[3, -1, 0])
    batch = make_batch(companions={"per_example": companion})
    edited = RowTemperature(policy="memory")(in_batch_table(rows, rows), batch)
    assert edited.scale.tolist() == pytest.approx([2.0, 1.0, 1.0])
    assert edited.scale.dtype == torch.float64
    assert RowTemperature(policy="memory").needs == {"companion:per_example"}
    assert not RowTemperature(policy="spread").needs


def test_policies_compose_carry_no_gradient_and_follow_permutations(make_table, make_batch):
    sim = make_table(4).sim.clone().requires_grad_()
    table = replace(make_table(4), sim=sim)
    spread = RowTemperature(policy="spread", rho=0.2, temperature=0.5)
    both = spread(RowTemperature(policy="cosine", low=0.5, high=0.5)(table, make_batch()), make_batch())
    assert not both.scale.requires_grad
    torch.testing.assert_close(both.scale, 0.5 * spread(table, make_batch()).scale)
    order = torch.tensor([2, 0, 3, 1])
    moved = replace(table, sim=sim[order][:, order])
    torch.testing.assert_close(spread(moved, make_batch()).scale, spread(table, make_batch()).scale[order])


def test_the_other_direction_uses_the_scale_of_its_own_row(make_table, make_batch):
    table = replace(make_table(3), scale=torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    total = 0.0
    for i in range(3):
        for sims in (table.sim[i], table.sim[:, i]):
            logits = (sims / (0.1 * table.scale[i])).tolist()
            total += math.log(sum(math.exp(x - logits[i]) for x in logits)) / 6
    assert InfoNCE(temperature=0.1, directions="both")(table, make_batch()).item() == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policy": "alignment", "alpha": 1.0, "start": 0.5}, "must be below 1"),
        ({"policy": "cosine", "low": 3.0}, "above high"),
        ({"policy": "warm"}, "alignment"),
        ({"policy": "spread", "rho": 0.0}, "rho"),
    ],
)
def test_refuses_values_outside_its_domain(settings, words):
    with pytest.raises(ValueError, match=words):
        RowTemperature(**settings)


def test_a_schedule_that_stays_at_one_changes_no_bit_of_the_loss(make_table, make_batch):
    table, batch = make_table(4), make_batch(step=17)
    edited = RowTemperature(policy="cosine", low=1.0, high=1.0)(table, batch)
    assert InfoNCE()(edited, batch).item() == InfoNCE()(table, batch).item()


def test_at_large_temperatures_all_negatives_are_alike(make_table, make_batch):
    """τ (L - log n) → mean_j s_ij - s_ip: of the softmax only the mean is left."""
    table = make_table(5)
    loss = 1e6 * (InfoNCE(temperature=1e6)(table, make_batch()).item() - math.log(5))
    assert loss == pytest.approx(float((table.sim.mean(dim=1) - table.sim.diagonal()).mean()), abs=1e-5)


def test_alignment_is_for_cosines(make_rows, make_batch):
    table = in_batch_table(make_rows(3), make_rows(3, seed=1), "dot")
    with pytest.raises(RecipeError, match='similarity = "dot", allowed: cosine'):
        RowTemperature(policy="alignment")(table, make_batch())
