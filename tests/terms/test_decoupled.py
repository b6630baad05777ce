"""decoupled against a loop over pairs, by hand, and at its edges."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sentemb.companions.per_example import PerExample
from sentemb.edits.temperature import RowTemperature
from sentemb.errors import NumericError, RecipeError
from sentemb.terms.decoupled import Decoupled
from sentemb.types import Batch, Examples

INF = float("inf")


def loop_reference(sim, positive, log_weight, temperature):
    """1/n Σ_i ( -mean_p ℓ_ip + log Σ_{j ∉ P} exp ℓ_ij ), over rows that have a negative."""
    n, m = sim.shape
    losses = []
    for i in range(n):
        logits = [float(sim[i, j]) / temperature + float(log_weight[i, j]) for j in range(m)]
        positives = [logits[j] for j in range(m) if positive[i, j] and logits[j] > -INF]
        negatives = [logits[j] for j in range(m) if not positive[i, j] and logits[j] > -INF]
        if negatives:
            losses.append(-sum(positives) / len(positives) + math.log(sum(map(math.exp, negatives))))
    return sum(losses) / max(len(losses), 1)


@pytest.fixture
def case(random_sim):
    """One row with two positives, one removed pair, and a row whose negatives are all removed."""
    positive = torch.eye(4, 6, dtype=torch.bool)
    positive[0, 5] = True
    log_weight = random_sim(4, 6, seed=1).detach()
    log_weight[1, 4] = -INF
    log_weight[3] = torch.where(positive[3], 0.0, -INF)
    return random_sim(4, 6), positive, log_weight


def test_equals_the_loop(case, table_of, batch_of):
    sim, positive, log_weight = case
    loss = Decoupled(temperature=0.3)(table_of(sim, positive, log_weight), batch_of(4))
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), positive, log_weight, 0.3), rel=1e-12)


def test_hand_worked_two_by_two(table_of, batch_of):
    # τ = 0.5: -2 + 0 and -1.2 + 1
    table = table_of(torch.tensor([[1.0, 0.0], [0.5, 0.6]], dtype=torch.float64))
    assert Decoupled(temperature=0.5)(table, batch_of()).item() == pytest.approx(-1.1)


def test_the_positives_gradient_does_not_fade(table_of, batch_of):
    # a row that is solved: under InfoNCE its gradient would be e^-40; here it is -1/(τ n)
    sim = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    Decoupled(temperature=0.05)(table_of(sim), batch_of()).backward()
    assert sim.grad[0, 0].item() == pytest.approx(-1 / 0.05 / 2)


def test_order_of_examples_and_candidates_does_not_matter(case, table_of, batch_of):
    sim, positive, log_weight = (tensor.detach() for tensor in case)
    rows, columns = [2, 0, 3, 1], [5, 2, 0, 4, 1, 3]
    before = Decoupled()(table_of(sim, positive, log_weight), batch_of(4))
    shuffled = [tensor[rows][:, columns] for tensor in (sim, positive, log_weight)]
    assert Decoupled()(table_of(*shuffled), batch_of(4)).item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(case, table_of, batch_of):
    sim, positive, log_weight = case
    term = Decoupled(temperature=0.4)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s, positive, log_weight), batch_of(4)), (sim,))


def test_one_example_alone_gives_zero_and_no_gradient(table_of, batch_of):
    sim = torch.tensor([[0.3]], requires_grad=True)
    loss = Decoupled()(table_of(sim), batch_of(1))
    loss.backward()
    assert loss.item() == 0.0
    assert sim.grad.item() == 0.0


@pytest.mark.parametrize("also_no_negative", [False, True])
def test_anchor_without_a_positive_is_infinite_and_diagnosed(table_of, batch_of, random_sim, also_no_negative):
    log_weight = torch.zeros(3, 3, dtype=torch.float64)
    log_weight[1, 1] = -INF
    if also_no_negative:
        log_weight[1] = -INF
    table = table_of(random_sim(3, 3), log_weight=log_weight)
    assert Decoupled()(table, batch_of(3)).item() == INF
    with pytest.raises(NumericError, match="decoupled, step 7: every positive of example 101"):
        Decoupled().diagnose(table, batch_of(3))


def test_bfloat16_table_is_scored_in_float32(case, table_of, batch_of):
    sim, positive, _ = case
    sim = sim.detach().bfloat16()
    loss = Decoupled()(table_of(sim, positive, torch.zeros(4, 6)), batch_of(4))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loop_reference(sim.double(), positive, torch.zeros(4, 6), 0.1), rel=1e-5)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="greater than or equal to"):
        Decoupled(temperature=-1.0)


# ------------------------------------------------------------------------------------------ weighted form, units
def weighted_reference(sim, sigma, temperature):
    """1/n Σ_i ( -v_i s_ii / τ + log Σ_{j ≠ i} exp(s_ij / τ) ), v_i = 2 - n softmax_i(s_ii / σ)."""
    n = len(sim)
    exponentials = [math.exp(float(sim[i, i]) / sigma) for i in range(n)]
    total = 0.0
    for i in range(n):
        v = 2 - n * exponentials[i] / sum(exponentials)
        negatives = sum(math.exp(float(sim[i, j]) / temperature) for j in range(n) if j != i)
        total += -v * float(sim[i, i]) / temperature + math.log(negatives)
    return total / n


def test_the_weighted_form_equals_the_loop_and_detaches_its_weights(random_sim, table_of, batch_of):
    sim = random_sim(5, 5)
    term = Decoupled(temperature=0.2, sigma=0.5)
    loss = term(table_of(sim), batch_of(5))
    assert loss.item() == pytest.approx(weighted_reference(sim.detach(), 0.5, 0.2), rel=1e-12)
    loss.backward()
    weight = 2 - 5 * torch.softmax(sim.detach().diagonal() / 0.5, dim=0)
    torch.testing.assert_close(sim.grad.diagonal(), -weight / 0.2 / 5)
    assert weight.mean().item() == pytest.approx(1.0)


def test_a_wide_sigma_is_the_plain_loss(random_sim, table_of, batch_of):
    sim = random_sim(5, 5)
    wide = Decoupled(sigma=1e9)(table_of(sim), batch_of(5))
    assert wide.item() == pytest.approx(Decoupled()(table_of(sim), batch_of(5)).item(), rel=1e-8)


def test_units_of_similarity_multiply_each_row_by_its_temperature(random_sim, table_of, batch_of):
    table = replace(table_of(random_sim(4, 4)), scale=torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64))
    rows = []
    for i in range(4):
        t = 0.1 * table.scale[i].item()
        logits = [x / t for x in table.sim[i].tolist()]
        rows.append(t * (-logits[i] + math.log(sum(math.exp(x) for j, x in enumerate(logits) if j != i))))
    loss = Decoupled(temperature=0.1, units="similarity")(table, batch_of(4))
    assert loss.item() == pytest.approx(sum(rows) / 4, rel=1e-12)


# -------------------------------------------------------------------------------------------------- identities
def gradient(loss, sim):
    return torch.autograd.grad(loss, sim)[0]


def test_macl_has_its_gradient(random_sim, table_of, batch_of):
    """MACL: L = mean_i( -V_i log P_i ), V_i = 1 / (1 - P_i) as a constant."""
    sim, temperature = random_sim(6, 6), 0.3
    p = torch.softmax(sim / temperature, dim=1).diagonal()
    macl = (-(1 / (1 - p)).detach() * p.log()).mean()
    ours = Decoupled(temperature=temperature)(table_of(sim), batch_of(6))
    torch.testing.assert_close(gradient(macl, sim), gradient(ours, sim))


@pytest.mark.parametrize("sharpness", [0.9, 10.0])
def test_cacr_with_one_positive_has_a_multiple_of_its_gradient(random_sim, table_of, batch_of, sharpness):
    """CACR: L = d_p - Σ_N b_j d_j, d = 2 - 2 s, b = softmax_N(-t d) as a constant: 1/t of it at τ = 1 / (2 t)."""
    sim = random_sim(6, 6)
    distance = 2 - 2 * sim
    eye = torch.eye(6, dtype=torch.bool)
    b = torch.softmax((-sharpness * distance).masked_fill(eye, -INF), dim=1).detach()
    cacr = (distance.diagonal() - (b * distance.masked_fill(eye, 0.0)).sum(dim=1)).mean()
    ours = Decoupled(temperature=1 / (2 * sharpness))(table_of(sim), batch_of(6)) / sharpness
    torch.testing.assert_close(gradient(cacr, sim), gradient(ours, sim))


def test_sogclr_without_memory_is_its_loss_in_units_of_similarity(random_sim, table_of, batch_of):
    """SogCLR with γ = 1: gradient Σ_N exp(h/τ) / (|N| u) ∇h, h = s_ij - s_ip, u = mean_N exp(h/τ)."""
    sim, temperature = random_sim(6, 6), 0.2
    eye = torch.eye(6, dtype=torch.bool)
    h = sim - sim.diagonal()[:, None]
    exponential = (h / temperature).exp().masked_fill(eye, 0.0).detach()
    weight = exponential / 5 / (exponential.sum(dim=1, keepdim=True) / 5)
    sogclr = (weight * h).sum(dim=1).mean()
    ours = Decoupled(temperature=temperature, units="similarity")(table_of(sim), batch_of(6))
    torch.testing.assert_close(gradient(sogclr, sim), gradient(ours, sim))


# ------------------------------------------------------------------------------------------------------ memory
def memory_of(examples: int = 200, **settings: float) -> PerExample:
    companion = PerExample(**settings)
    companion.prepare(Examples(ids=np.arange(examples, dtype=np.int64), columns={}), None)
    return companion


def after(companion: PerExample, batch: Batch) -> None:
    companion.after_step(batch, None, None)


def test_memory_without_memory_is_the_plain_loss_and_gradient(case, table_of, batch_of):
    """γ = 1 forgets: value and gradient are those of decoupled, in both units, whatever came before."""
    sim, positive, log_weight = case
    companion = memory_of(gamma=1.0, rate=0.0)
    for step, units in enumerate(("logits", "similarity")):
        batch = batch_of(4, companions={"per_example": companion}, step=step)
        table = table_of(sim, positive, log_weight)
        ours = Decoupled(temperature=0.3, units=units, memory=True)(table, batch)
        plain = Decoupled(temperature=0.3, units=units)(table, batch)
        assert ours.item() == pytest.approx(plain.item(), rel=1e-12)
        torch.testing.assert_close(gradient(ours, sim), gradient(plain, sim))
        after(companion, batch)


def test_memory_equals_sogclrs_loop_over_several_visits(random_sim, table_of, batch_of):
    """Gradient Σ_N exp(h/τ) / (|N| u) ∇s_ij - ∇s_ip,  u ← (1 - γ) u + γ mean_N exp(h/τ);  G = log u + ρ - Σ …"""
    n, tau, gamma, rho = 5, 0.2, 0.6, 0.4
    companion = memory_of(tau_init=tau, gamma=gamma, rho=rho, rate=0.03, velocity=0.5)
    u, v = [None] * n, [0.0] * n
    temperature = [tau] * n
    for step in range(4):
        sim = random_sim(n, n, seed=step)
        batch = batch_of(n, companions={"per_example": companion}, step=step)
        table = RowTemperature(policy="memory")(table_of(sim), batch)
        loss = Decoupled(temperature=tau, units="similarity", memory=True)(table, batch)
        found = gradient(loss, sim)
        after(companion, batch)
        total = 0.0
        for i in range(n):
            h = {j: float(sim[i, j].detach() - sim[i, i].detach()) for j in range(n) if j != i}
            t = temperature[i]
            g = sum(math.exp(x / t) for x in h.values()) / (n - 1)
            u[i] = g if u[i] is None else (1 - gamma) * u[i] + gamma * g
            weight = {j: math.exp(x / t) / ((n - 1) * u[i]) for j, x in h.items()}
            for j in range(n):
                assert found[i, j].item() == pytest.approx((-1 if i == j else weight[j]) / n, rel=1e-5)
            total += t * (math.log((n - 1) * u[i])) / n  # of -s_p + τ log(|N| u) + s_p
            slope = math.log(u[i]) + rho - sum(weight[j] * h[j] / t for j in h)
            v[i] = 0.5 * v[i] + 0.5 * max(-3.0, min(3.0, slope))
            temperature[i] = max(0.05, min(1.0, t - 0.03 * v[i]))
        assert loss.item() == pytest.approx(total, rel=1e-5)
        assert companion.tau[100:105].tolist() == pytest.approx(temperature, rel=1e-5)


def test_the_temperatures_gradient_is_rho_minus_the_divergence(random_sim, table_of, batch_of):
    """Identity of iSogCLR at γ = 1: dF/dτ = ρ - KL(softmax over negatives ‖ uniform), F = τ log mean exp(h/τ) + τ ρ."""
    companion = memory_of(gamma=1.0, rate=1e-6, velocity=1.0, rho=0.4)
    sim, batch = random_sim(5, 5), batch_of(5, companions={"per_example": companion})
    Decoupled(temperature=0.5, memory=True)(table_of(sim), batch)
    after(companion, batch)
    for i in range(5):
        q = torch.softmax(torch.stack([sim[i, j].detach() for j in range(5) if j != i]) / 0.5, dim=0)
        divergence = float((q * (q * 4).log()).sum())
        assert companion.speed[100 + i].item() == pytest.approx(0.4 - divergence, rel=1e-4)


def test_memory_weighs_nothing_that_was_removed_and_stays_finite(case, table_of, batch_of):
    sim, positive, log_weight = case
    companion = memory_of(gamma=0.5)
    for step in range(3):
        batch = batch_of(4, companions={"per_example": companion}, step=step)
        loss = Decoupled(temperature=1e-4, memory=True)(table_of(sim, positive, log_weight), batch)
        found = gradient(loss, sim)
        after(companion, batch)
    assert torch.isfinite(loss)
    assert torch.isfinite(found).all()
    assert (found[1, 4], found[3].abs().sum()) == (0, 0)
    assert companion.is_seen.nonzero().flatten().tolist() == [100, 101, 102]  # the last row has no negative


def test_forward_changes_no_state(random_sim, table_of, batch_of):
    companion = memory_of()
    before = {name: value.clone() for name, value in companion.state_dict().items()}
    Decoupled(memory=True)(table_of(random_sim(3, 3)), batch_of(3, companions={"per_example": companion}))
    assert all(torch.equal(value, before[name]) for name, value in companion.state_dict().items())


def test_memory_of_one_example_alone_and_of_bfloat16(table_of, batch_of):
    companion = memory_of()
    sim = torch.tensor([[0.3]], requires_grad=True)
    loss = Decoupled(memory=True)(table_of(sim), batch_of(1, companions={"per_example": companion}))
    loss.backward()
    assert (loss.item(), sim.grad.item()) == (0.0, 0.0)
    half = torch.tensor([[0.5, 0.1], [0.2, 0.4]], dtype=torch.bfloat16)
    batch = batch_of(companions={"per_example": memory_of()})
    loss = Decoupled(memory=True)(table_of(half, log_weight=torch.zeros(2, 2)), batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(Decoupled()(table_of(half, log_weight=torch.zeros(2, 2)), batch).item())


def test_an_anchor_without_a_positive_is_infinite_with_memory_too(table_of, batch_of, random_sim):
    log_weight = torch.zeros(3, 3, dtype=torch.float64)
    log_weight[1, 1] = -INF
    companion = memory_of()
    batch = batch_of(3, companions={"per_example": companion})
    assert Decoupled(memory=True)(table_of(random_sim(3, 3), log_weight=log_weight), batch).item() == INF


def test_memory_needs_its_companion(table_of, batch_of):
    assert Decoupled(memory=True).needs == {"companion:per_example"}
    assert not Decoupled().needs
    with pytest.raises(RecipeError, match='decoupled: needs the companion "per_example"'):
        Decoupled(memory=True)(table_of(torch.eye(2)), batch_of())


def test_weights_of_a_batch_without_positives_leave_the_loss_infinite(random_sim, table_of, batch_of):
    table = table_of(random_sim(3, 3))
    removed = replace(table, log_weight=torch.zeros(3, 3, dtype=torch.float64).fill_diagonal_(-math.inf))
    assert Decoupled(sigma=0.5)(removed, batch_of(3)).item() == math.inf
