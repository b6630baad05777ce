"""The queue is equal on every device, and the same as on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from tiny_module import TinyModule, batch_of, build_of, services_of, tokens_of

from sentemb.companions.momentum import Momentum
from sentemb.types import Batch

ROWS = [[5, 6], [7], [8, 9, 10], [11], [12, 13]]
SPLIT = (3, 2)


def steps(companion: Momentum, module: TinyModule, local: slice) -> None:
    """Two steps, each device with its own rows and everybody's ids."""
    for first in (0, 5):
        whole = batch_of(ROWS, range(first, first + 5))
        batch = Batch(views=whole.views, local=local, tokens={"anchor": tokens_of(ROWS[local])}, encoded={})
        with torch.no_grad():
            module.head.weight.mul_(1.1)
        companion.after_step(batch, module, services_of([]))


def fresh() -> tuple[Momentum, TinyModule]:
    module = TinyModule()
    companion = Momentum(momentum=0.5, queue_size=7)
    companion.bind(build_of(module))
    return companion, module


def device(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    start = sum(SPLIT[:rank])
    companion, module = fresh()
    steps(companion, module, slice(start, start + SPLIT[rank]))
    # twins on the first device alone: both call the encoder equally often
    same, other = tokens_of([[5], [6]]), tokens_of([[5], [6 + rank]])
    calls = []
    companion.keys = True
    companion.encoder.register_forward_hook(lambda *_: calls.append(1))
    companion.observe({"anchor": same, "positive": other}, {})
    assert len(calls) == 2
    torch.save(companion.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_devices_equal_one(tmp_path: Path):
    torch.multiprocessing.spawn(device, args=(str(tmp_path),), nprocs=2)
    companion, module = fresh()
    steps(companion, module, slice(0, 5))
    alone = companion.state_dict()
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert state.keys() == alone.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, alone[name], msg=name)
