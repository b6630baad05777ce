"""per_example: normalisers, temperatures and velocities by example, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_module import TinyModule, batch_of, column_of, examples_of, services_of

from sentemb.companions import PARTS
from sentemb.companions.per_example import PerExample
from sentemb.edits import Queue
from sentemb.terms import Decoupled
from sentemb.training.settings import TrainSettings


def prepared(examples: int = 6, **settings: float) -> PerExample:
    companion = PerExample(**settings)
    companion.prepare(examples_of(anchor=column_of([[5]] * examples)), services_of([]))
    return companion


def visit(companion: PerExample, step: int, ids: list[int], means: list[float], slopes: list[float]) -> list[float]:
    """One step: g of every row, and Σ weight · h / τ of every row; gives u."""
    rows = torch.tensor(ids)
    counted = torch.tensor([not math.isnan(mean) for mean in means])
    log_mean = torch.tensor([0.0 if math.isnan(mean) else math.log(mean) for mean in means], dtype=torch.float64)
    log_u = companion.normaliser(rows, log_mean, counted)
    companion.remember(step, rows, log_u, torch.tensor(slopes, dtype=torch.float64), counted)
    batch = batch_of([[5]] * len(ids), ids)
    companion.after_step(type(batch)(**{**vars(batch), "step": step}), TinyModule(), services_of([]))
    return log_u.exp().tolist()


def test_follows_the_formulas_of_a_loop():
    companion = prepared(gamma=0.8, velocity=0.5, rate=0.03, rho=0.4)
    u, v, tau = {}, dict.fromkeys(range(6), 0.0), dict.fromkeys(range(6), 0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(12):
        ids = torch.randperm(6, generator=generator)[:4].tolist()
        means = (torch.rand(4, generator=generator, dtype=torch.float64) + 0.2).tolist()
        slopes = (4 * torch.rand(4, generator=generator, dtype=torch.float64) - 2).tolist()
        found = visit(companion, step, ids, means, slopes)
        for i, g, s, found_u in zip(ids, means, slopes, found, strict=True):
            u[i] = 0.2 * u[i] + 0.8 * g if i in u else g
            assert found_u == pytest.approx(u[i], rel=1e-6)
            slope = max(-3.0, min(3.0, math.log(u[i]) + 0.4 - s))
            v[i] = 0.5 * v[i] + 0.5 * slope
            tau[i] = max(0.05, min(1.0, tau[i] - 0.03 * v[i]))
    assert companion.tau.tolist() == pytest.approx(list(tau.values()), rel=1e-5)
    assert companion.speed.tolist() == pytest.approx(list(v.values()), rel=1e-5)
    assert companion.log_u[list(u)].exp().tolist() == pytest.approx(list(u.values()), rel=1e-5)


def test_by_hand():
    # first visit: u = 2; G = log 2 + 0.4 - 0.1 = 0.9931, v = 0.4966, τ = 0.1 - 0.03 · 0.4966; then u = 0.4 + 0.8 · 1
    companion = prepared()
    assert visit(companion, 0, [3], [2.0], [0.1]) == pytest.approx([2.0])
    assert companion.tau[3].item() == pytest.approx(0.1 - 0.03 * 0.5 * (math.log(2) + 0.3))
    assert visit(companion, 1, [3], [1.0], [0.0]) == pytest.approx([1.2])
    assert companion.tau[:3].tolist() == pytest.approx([0.1] * 3)


def test_u_becomes_the_mean_over_all_negatives_after_many_visits():
    """The encoder is frozen, every visit sees two of 40 negatives: their means average out."""
    companion = prepared(1, gamma=0.02, rate=0.0)
    generator = torch.Generator().manual_seed(1)
    exponential = torch.rand(40, generator=generator, dtype=torch.float64) * 3
    total = 0.0
    for step in range(3000):
        seen = exponential[torch.randperm(40, generator=generator)[:2]]
        (u,) = visit(companion, step, [0], [float(seen.mean())], [0.0])
        total += u if step >= 1000 else 0.0
    assert total / 2000 == pytest.approx(float(exponential.mean()), rel=0.02)


def test_without_memory_u_is_the_batchs_own_mean():
    companion = prepared(gamma=1.0)
    visit(companion, 0, [0, 1], [5.0, 7.0], [0.0, 0.0])
    assert visit(companion, 1, [1, 0], [2.0, 3.0], [0.0, 0.0]) == pytest.approx([2.0, 3.0])


def test_rows_of_one_example_update_once_in_any_order():
    one, other, single = prepared(), prepared(), prepared()
    for companion in (one, other, single):
        visit(companion, 0, [2], [1.0], [0.2])
    found = visit(one, 1, [2, 4, 2], [3.0, 1.0, 5.0], [0.3, 0.0, 0.5])
    moved = visit(other, 1, [2, 2, 4], [5.0, 3.0, 1.0], [0.5, 0.3, 0.0])
    alone = visit(single, 1, [2], [4.0], [0.4])
    assert found[0] == found[2] == pytest.approx(alone[0])
    assert moved[0] == moved[1]
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])
        torch.testing.assert_close(value[:4], single.state_dict()[name][:4])


def test_rows_that_are_no_example_or_have_no_negatives_leave_no_trace():
    companion = prepared()
    before = {name: value.clone() for name, value in companion.state_dict().items()}
    assert visit(companion, 0, [-1, -1, 2], [2.0, 3.0, math.nan], [0.1, 0.1, math.nan])[:2] == pytest.approx([2, 3])
    for name, value in companion.state_dict().items():
        assert torch.equal(value, before[name])
    assert companion.temperature_of(torch.tensor([-1, 0])).tolist() == pytest.approx([0.1, 0.1])


def test_a_skipped_step_changes_nothing():
    companion = prepared()
    rows, log_u = torch.tensor([0]), torch.tensor([5.0])
    companion.remember(0, rows, log_u, log_u, torch.tensor([True]))
    assert not companion.is_seen.any()
    visit(companion, 1, [1], [2.0], [0.0])
    assert companion.is_seen.tolist() == [False, True, False, False, False, False]
    assert companion._pending == {}


def test_steps_that_are_accumulated_are_each_written():
    companion = prepared()
    for step, example in enumerate((1, 2)):
        rows = torch.tensor([example])
        companion.remember(step, rows, torch.tensor([0.5]), torch.tensor([0.0]), torch.tensor([True]))
    batch = batch_of([[5]], [1])
    for step in range(2):
        companion.after_step(type(batch)(**{**vars(batch), "step": step}), TinyModule(), services_of([]))
    assert companion.is_seen.tolist() == [False, True, True, False, False, False]


def test_temperatures_stay_between_their_bounds():
    companion = prepared(tau_min=0.09, tau_max=0.12, rate=1.0)
    visit(companion, 0, [0, 1], [9.0, 0.01], [0.0, 0.0])
    assert companion.tau[:2].tolist() == pytest.approx([0.09, 0.12])


def test_checkpoint_restores_every_bit():
    companion, fresh = prepared(), prepared()
    visit(companion, 0, [0, 3], [2.0, 0.3], [0.1, 0.7])
    fresh.load_checkpoint_state({name: value.clone() for name, value in companion.checkpoint_state().items()})
    for one in (companion, fresh):
        visit(one, 1, [3, 5], [1.0, 4.0], [0.2, 0.1])
    for name, value in companion.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_is_a_part_of_small_memory():
    assert PARTS["per_example"] is PerExample
    assert sum(value.numel() * value.element_size() for value in prepared(1000).state_dict().values()) == 13_000


# ------------------------------------------------------------------------------------- what check says of a recipe
def faults(companion: PerExample, **fields: object) -> list[str]:
    known = {"train": TrainSettings(batch_size=64), "edits": (), "terms": (Decoupled(memory=True),), **fields}
    return companion.faults(known)


def test_a_rho_that_no_batch_reaches_is_refused():
    assert faults(PerExample()) == []
    assert "rho = 4.2: with a batch of 64 it must be below log(batch_size - 1) = 4.14" in faults(PerExample(rho=4.2))[0]
    assert faults(PerExample(rho=4.2, rate=0.0)) == []  # nothing follows it
    assert faults(PerExample(rho=4.2), edits=(Queue(),)) == []


def test_terms_that_do_not_fit_are_told():
    other = Decoupled(memory=True, temperature=0.05)
    assert "tau_init = 0.1, but the term decoupled has temperature = 0.05" in faults(PerExample(), terms=(other,))[0]
    assert faults(PerExample(), terms=(Decoupled(temperature=0.05),)) == []
    two = (Decoupled(memory=True), Decoupled(memory=True).marked(name="second"))
    assert "decoupled, second read it" in faults(PerExample(), terms=two)[0]
    assert "nested_dims" in faults(PerExample(), train=TrainSettings(batch_size=64, nested_dims=[8]))[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tau_init": 0.01}, "is not between"), ({"tau_max": 0.06, "tau_min": 0.2}, "is not between"),
        ({"gamma": 0.0}, "gamma"), ({"gamma": 1.1}, "gamma"), ({"velocity": -0.1}, "velocity"), ({"rho": 0.0}, "rho"),
        ({"rate": -1.0}, "rate"),
    ],
)  # fmt: skip
def test_refuses_values_outside_its_domain(settings, words):
    with pytest.raises(ValueError, match=words):
        PerExample(**settings)
