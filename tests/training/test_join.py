"""Processes find those of their own start, whatever earlier starts left in torchrun's store."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import context, settle_in

from sentemb.distributed import join
from sentemb.errors import DeviceLost


def _joined(rank: int, port: int, after_s: float, pipe: Any) -> None:
    settle_in(rank, 2)
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    time.sleep(after_s)
    try:
        join(20)
        value = torch.tensor(float(rank + 1))
        dist.all_reduce(value)
        pipe.send(value.item())
    except DeviceLost as error:
        pipe.send(str(error))
    # an end without goodbye, as of a process that is killed
    os._exit(0)


def _start(rank: int, port: int, after_s: float) -> Any:
    ours, theirs = context().Pipe()
    context().Process(target=_joined, args=(rank, port, after_s, theirs), daemon=True).start()
    theirs.close()
    return ours


@pytest.fixture
def store() -> dist.TCPStore:
    """What torchrun's agent keeps over all restarts."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))


@pytest.mark.parametrize("late", [0, 1])
def test_a_later_start_does_not_meet_an_earlier_one(store: dist.TCPStore, late: int) -> None:
    for attempt in range(3):
        pipes = [_start(rank, store.port, 1.0 if attempt and rank == late else 0.0) for rank in range(2)]
        assert [pipe.recv() for pipe in pipes] == [3.0, 3.0], f"start {attempt}"


def test_one_that_is_alone_says_so(store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceLost, match=r"2 processes of this run did not find each other within 0.5 seconds"):
        join(0.5)
    assert not dist.is_initialized()
