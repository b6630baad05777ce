from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from part_examples import tree_of
from rank_work import open_run

from sentemb.errors import NumericError
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores


class _NaNAt(Term):
    """Its loss is NaN at some steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, table: PairScores, batch: Batch) -> torch.Tensor:
        return table.sim.sum() * (torch.nan if batch.step in self.steps else 0.0)


@pytest.fixture
def make(still_bert: Path, pairs_file: Path, tmp_path: Path) -> Any:
    def run(**train: Any) -> Any:
        tree = tree_of("heads", "mlp", str(still_bert), str(pairs_file), **train)
        return open_run(tree, str(tmp_path), dtype=torch.float64)

    return run


def _break(run: Any, *steps: int) -> None:
    run.plan.objective.terms[0] = _NaNAt(steps)


def _weights(run: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.plan.objective.parameters()]


def test_accumulation_is_the_mean_of_its_batches(make: Any) -> None:
    run = make(gradient_accumulation=2)
    batches = [run.make_input(np.arange(7), 0), run.make_input(np.arange(7, 12), 1)]
    run.step.backward(batches)
    found = [parameter.grad.clone() for parameter in run.step.parameters]
    run.optimizer.zero_grad(set_to_none=True)
    total = sum(run.plan.objective(batch).total for batch in batches) / 2
    total.backward()
    for gradient, parameter in zip(found, run.step.parameters, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-14)


def test_gradients_are_clipped(make: Any) -> None:
    seen: list[float] = []

    def note(*_: Any) -> None:
        norms = [parameter.grad.norm() for parameter in run.step.parameters if parameter.grad is not None]
        seen.append(float(torch.stack(norms).norm()))

    for limit in (1e-3, 0.0):
        run = make(max_grad_norm=limit)
        run.step.plain_optimizer.register_step_pre_hook(note)
        run.step([run.make_input(np.arange(7), 0)])
    assert seen[0] == pytest.approx(1e-3, rel=1e-3)
    assert seen[1] > 1e-2


def test_a_step_follows_the_schedule(make: Any) -> None:
    run = make(max_steps=4, epochs=4, learning_rate=1e-3)
    rates = []
    for step in range(4):
        rates.append(run.schedule.get_last_lr()[0])
        run.step([run.make_input(np.arange(7), step)])
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_nan_stops_with_step_and_part(make: Any) -> None:
    run = make()
    _break(run, 5)
    run.step([run.make_input(np.arange(7), 4)])
    before = _weights(run)
    with pytest.raises(NumericError, match=r"step 5: the loss is not finite \(part: info_nce\)"):
        run.step([run.make_input(np.arange(7), 5)])
    assert all(torch.equal(one, two) for one, two in zip(before, _weights(run), strict=True))


def test_nan_is_skipped_and_counted(make: Any) -> None:
    run = make(on_nan="skip", learning_rate=1e-2)
    _break(run, 0)
    before = _weights(run)
    assert run.step([run.make_input(np.arange(7), 0)]).was_skipped
    assert all(torch.equal(one, two) for one, two in zip(before, _weights(run), strict=True))
    assert all(parameter.grad is None for parameter in run.step.parameters)
    assert not run.step([run.make_input(np.arange(7), 1)]).was_skipped


class _NaNGradientAt(_NaNAt):
    """Its loss is finite and its gradient is not: the root's slope at 0 is infinite."""

    def forward(self, table: PairScores, batch: Batch) -> torch.Tensor:
        total = table.sim.sum()
        return (total - total.detach()).abs().sqrt() if batch.step in self.steps else 0.0 * total


@pytest.mark.parametrize("limit", [1.0, 0.0])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(make: Any, limit: float) -> None:
    run = make(on_nan="skip", max_grad_norm=limit)
    run.plan.objective.terms[0] = _NaNGradientAt([1])
    run.step([run.make_input(np.arange(7), 0)])
    before = _weights(run)
    result = run.step([run.make_input(np.arange(7), 1)])
    assert result.was_skipped
    assert all(torch.equal(one, two) for one, two in zip(before, _weights(run), strict=True))
    assert not run.step([run.make_input(np.arange(7), 2)]).was_skipped
    stopping = make()
    stopping.plan.objective.terms[0] = _NaNGradientAt([3])
    with pytest.raises(NumericError, match="step 3: the loss is finite, but its gradient is not"):
        stopping.step([stopping.make_input(np.arange(7), 3)])


def test_a_skipped_step_leaves_running_statistics_as_they_were(
    still_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    tree = tree_of("heads", "projector", str(still_bert), str(pairs_file), on_nan="skip")
    run = open_run(tree, str(tmp_path), dtype=torch.float64)
    _break(run, 1)
    run.step([run.make_input(np.arange(7), 0)])
    before = [value.clone() for value in run.plan.objective.buffers()]
    assert run.step([run.make_input(np.arange(7), 1)]).was_skipped
    assert all(torch.equal(one, two) for one, two in zip(before, run.plan.objective.buffers(), strict=True))


def test_companions_change_only_after_the_step(still_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    run = open_run(tree_of("edits", "queue", str(still_bert), str(pairs_file)), str(tmp_path))
    momentum = run.plan.objective.companions["momentum"]
    run.step.backward([run.make_input(np.arange(7), 0)])
    assert int(momentum.seen) == 0
    run.step([run.make_input(np.arange(7), 0)])
    assert int(momentum.seen) == 7
