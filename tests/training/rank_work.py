"""What the processes of ``ranks`` do: one run's gradients, as the training loop sets it up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from part_examples import tree_of
from remining import MINING
from torch import Tensor

MICRO_BATCHES = ((0, 7), (7, 12), (12, 19), (19, 24))  # of rows; uneven on two and three devices


def open_run(
    tree: dict[str, Any], folder: str, *, dtype: torch.dtype = torch.float64, resume: bool = False, **changes: Any
) -> Any:
    """The run of a recipe; ``changes`` are of its plan."""
    from dataclasses import replace

    from accelerate.state import AcceleratorState

    from sentemb.recipe.recipe import Recipe
    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    AcceleratorState._reset_state(reset_partial_state=True)
    plan = replace(build(Recipe.from_tree(tree, "test.toml"), Path(folder)), **changes)
    plan.objective.to(dtype)
    return Run(plan, resume=resume)


def gradients(
    room: str, name: str, backbone: str, data: str, folder: str, dtype: str, train: dict[str, Any],
    fault: str | None = None,
) -> dict[str, Tensor]:
    """Losses, gradients and companions' state over two steps of two batches each; parameters move in between."""
    with planted(fault):
        run = open_run(tree_of(room, name, backbone, data, **train), folder, dtype=getattr(torch, dtype))
        return observed_steps(run)


def observed_steps(run: Any) -> dict[str, Tensor]:
    """Two steps by plain gradient descent; everything that must be equal on any number of devices."""
    from sentemb.distributed import devices, rank
    from sentemb.training.checkpoint import companion_state
    from sentemb.training.device import unsharded

    found: dict[str, Tensor] = {}
    objective = run.plan.objective
    for step in range(2):
        batches = [
            run.make_input(np.arange(*MICRO_BATCHES[micro]), micro, rank=rank(), devices=devices())
            for micro in (2 * step, 2 * step + 1)
        ]
        done = run.step.backward(batches)
        for place, losses in enumerate(done):
            for part, value in losses.parts.items():
                found[f"{step}/{place}/loss/{part}"] = value.clone()
        for key, parameter in objective.named_parameters():
            if parameter.requires_grad:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                found[f"{step}/gradient/{key}"] = unsharded(gradient).clone()
                with torch.no_grad():
                    parameter -= 0.2 * gradient
                parameter.grad = None
        for losses in done:
            objective.after_step(losses.batch, run.step.services)
        for key, value in companion_state(objective).items():
            if value.is_floating_point():
                found[f"{step}/state/{key}"] = value.detach().clone()
    return found


def dealt_rows(tree: dict[str, Any], folder: str, start: int = 0) -> list[list[int]]:
    """The examples of every batch of a run from a step on, whatever the companions' state."""
    run = open_run(tree, folder, dtype=torch.float32)
    return [batch.ids["anchor"].tolist() for batches in run.feed.steps(start) for batch in batches]


def cached_and_plain(backbone: str, data: str, folder: str, room: str, name: str, train: dict[str, Any]) -> list[Any]:
    """With dropout: losses and gradients of the uncached batch and of the cached one."""
    from dataclasses import replace

    from sentemb.training.device import generator_states, restore_generators
    from sentemb.training.gradcache import GradCache

    run = open_run(tree_of(room, name, backbone, data, **train), folder)
    objective = run.plan.objective
    batch = run.make_input(np.arange(20), 0)
    cpu = torch.device("cpu")
    start = generator_states(cpu)

    def observe(work: Callable[[], Any]) -> Any:
        restore_generators(start, cpu)
        losses = work()
        result = {f"gradient/{key}": parameter.grad.clone() for key, parameter in objective.named_parameters()
                  if parameter.grad is not None}
        result.update({f"loss/{key}": value.clone() for key, value in losses.parts.items()})
        result["generator"] = torch.rand(4, dtype=torch.float64)  # the next draw must be the same, too
        objective.zero_grad(set_to_none=True)
        return result

    def plain() -> Any:
        # the cache encodes the longest chunk first
        losses = run.step.model(replace(batch, groups=tuple(reversed(batch.groups))))
        losses.total.backward()
        return losses

    return [observe(plain), observe(lambda: GradCache(objective, run.accelerator)(batch, 1.0))]


def mined_again(backbone: str, data: str, folder: str, shard: bool) -> Tensor:
    """Everybody's nearest after four steps, with a search after every other one."""
    tree = {**tree_of("edits", "given", backbone, data, max_steps=4, epochs=9, shard=shard), **MINING}
    run = open_run(tree, folder, dtype=torch.float32)
    for batches in run.inputs():
        run.train_step(batches)
    companion: Any = run.plan.objective.companions["remining"]
    assert int(companion.searches) == 2
    found: Tensor = companion.neighbour
    return found


# -------------------------------------------------------------------------------------------- planted faults
@contextmanager
def planted(fault: str | None) -> Iterator[None]:
    """A mistake that published code bases make, for as long as the block lasts."""
    from sentemb import distributed as gather
    from sentemb.training import objective as objectives

    if fault is None:
        yield
        return
    gather_rows, backward = objectives.gather_rows, gather._Gather.backward
    if fault == "missing factor":
        # every device keeps its own loss's gradient: 1/W of the batch's after the mean
        gather._Gather.backward = staticmethod(
            lambda ctx, gradient: (gradient[ctx.start : ctx.start + ctx.rows].clone(), None)
        )
    elif fault == "detached rows":
        objectives.gather_rows = lambda local, sizes: gather.gather_detached(local, sizes)
        # without any gradient there would be nothing to compare: heads and terms still learn
    elif fault == "misaligned negatives":

        def misaligned(local: Tensor, sizes: Any) -> Tensor:
            rows = gather_rows(local, sizes)
            return torch.cat([rows[:, :2], rows[:, 2:].roll(sizes[0], dims=0)], dim=1)

        objectives.gather_rows = misaligned
    else:
        raise AssertionError(fault)
    try:
        yield
    finally:
        objectives.gather_rows, gather._Gather.backward = gather_rows, staticmethod(backward)
