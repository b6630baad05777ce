"""The generators that a step draws from (dropout): seeded, saved, restored, left untouched by evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from sentemb.distributed import all_objects, rank


def seed_all(seed: int, device_rank: int) -> None:
    """Different dropout on every device, the same in every run."""
    torch.manual_seed(seed + 1_000_003 * device_rank)


def states(device: torch.device) -> dict[str, Tensor]:
    """This process's generator states."""
    tensors = {"cpu": torch.random.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def collect(device: torch.device) -> dict[int, dict[str, Tensor]]:
    """Every device's generator states, on every device."""
    return dict(enumerate(all_objects(states(device))))


def restore(saved: Mapping[str, Tensor] | None, device: torch.device) -> None:
    """Set the generators; a device that has no saved state (a new one) keeps its seed."""
    if saved is None:
        torch.manual_seed(torch.initial_seed() + rank())
        return
    torch.random.set_rng_state(saved["cpu"])
    if device.type == "cuda" and "cuda" in saved:
        torch.cuda.set_rng_state(saved["cuda"], device)


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Whatever happens inside draws from the generators without a trace."""
    before = states(device)
    try:
        yield
    finally:
        restore(before, device)
