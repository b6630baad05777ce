"""Processes that train together: started once, then given one function after the other.

They come from a fork server that has imported the heavy packages, so that each starts in milliseconds; it never ran
anything, so forking it is safe.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

ANSWER_WITHIN_S = 300.0
PRELOAD = [
    "torch", "torch.nn.parallel.distributed", "transformers", "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert", "accelerate", "safetensors.torch",
    "sentemb.recipe.train", "sentemb.training.run", "sentemb.terms", "sentemb.edits", "sentemb.companions",
    "sentemb.data.sources",
]


def context() -> Any:
    """The fork server's multiprocessing context."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


class Ranks:
    """``world`` processes joined by gloo (one alone is not joined to anything)."""

    def __init__(self, world: int, folder: Path) -> None:
        self.world = world
        self._pipes: list[Connection] = []
        self.processes = []
        for rank in range(world):
            ours, theirs = context().Pipe()
            process = context().Process(target=_serve, args=(rank, world, str(folder), theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)

    def run(self, function: Any, *arguments: Any) -> list[Any]:
        """``function(*arguments)`` in every process; the results in rank order. A failure is raised with its text."""
        name = (function.__module__, function.__qualname__)
        for pipe in self._pipes:
            pipe.send((name, arguments))
        answers: list[Any] = [None] * self.world
        left = list(range(self.world))
        while left:
            ready = wait([self._pipes[rank] for rank in left], timeout=ANSWER_WITHIN_S)
            assert ready, f"ranks {left} did not answer {name}"
            for rank in [rank for rank in left if self._pipes[rank] in ready]:
                is_fine, answers[rank] = self._pipes[rank].recv()
                assert is_fine, f"rank {rank}: {answers[rank]}"
                left.remove(rank)
        return answers

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.join()


def settle_in(rank: int, world: int) -> None:
    """What torchrun would have set, and one thread."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", SENTEMB_QUIET="1", HF_HUB_OFFLINE="1")
    if world == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
    import torch

    torch.set_num_threads(1)


def join_by_file(rank: int, world: int, store: str, timeout_s: float = 120.0) -> None:
    """Join the other ranks through a file."""
    from datetime import timedelta

    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world,
                            timeout=timedelta(seconds=timeout_s))


def _serve(rank: int, world: int, folder: str, pipe: Connection) -> None:
    settle_in(rank, world)
    if world > 1:
        join_by_file(rank, world, f"{folder}/store-{world}")
    while True:
        try:
            (module, name), arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(importlib.import_module(module), name)(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
