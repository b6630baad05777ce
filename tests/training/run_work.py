"""Whole training runs in processes of their own, which tests may kill."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ranks import context, join_by_file, settle_in


def start(tree: dict[str, Any], output: Path, **options: Any) -> tuple[Any, Connection]:
    """Start a run; the pipe tells ("step", n) after every step and at last ("done", …) or ("error", kind, message)."""
    ours, theirs = context().Pipe()
    process = context().Process(target=_train, args=(tree, str(output), theirs), kwargs=options, daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _train(
    tree: dict[str, Any], output: str, pipe: Connection, *, resume: bool = True, rank: int = 0, world: int = 1,
    store: str = "", file_limit_after: int | None = None,
) -> None:
    settle_in(rank, world)
    sys.stderr = said_by(Path(output)).open("a", buffering=1)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", force=True)
    from sentemb.errors import SentembError
    from sentemb.recipe.recipe import Recipe
    from sentemb.recipe.train import train
    from sentemb.training.run import Run

    if world > 1:
        join_by_file(rank, world, store, float(tree["train"].get("device_timeout_s", 60)))
    train_step = Run.train_step

    def step(self: Run, *arguments: Any) -> Any:
        result = train_step(self, *arguments)
        if self.state.step == file_limit_after:
            _limit_files()
        pipe.send(("step", self.state.step))
        return result

    Run.train_step = step  # type: ignore[method-assign]
    try:
        result = train(Recipe.from_tree(tree, "test.toml"), output=output, resume=resume)
        pipe.send(("done", result.steps, result.best_score, dict(result.last_losses)))
    except SentembError as error:
        pipe.send(("error", type(error).__name__, str(error)))


def said_by(output: Path) -> Path:
    """Where a run's stderr goes."""
    return output.with_name(f"{output.name}.stderr")


def _limit_files() -> None:
    """From now on no file can grow beyond 40 kB: a save runs out of room halfway."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def finish(pipe: Connection, within_s: float = 240.0) -> tuple[Any, ...]:
    """The run's last word."""
    end = time.monotonic() + within_s
    while pipe.poll(max(0.0, end - time.monotonic())):
        said: tuple[Any, ...] = pipe.recv()
        if said[0] != "step":
            return said
    raise AssertionError(f"the run said nothing for {within_s} s")


def complete(tree: dict[str, Any], output: Path, **options: Any) -> tuple[Any, ...]:
    """A run from start to end."""
    process, pipe = start(tree, output, **options)
    said = finish(pipe)
    process.join()
    return said


def kill_at(step: int, tree: dict[str, Any], output: Path, draw: random.Random) -> bool:
    """Start (or resume) a run and kill -9 it some moments after ``step``; False if it ended before."""
    process, pipe = start(tree, output)
    try:
        while True:
            said = pipe.recv()
            if said[0] != "step":
                return False
            if said[1] >= step:
                break
        time.sleep(draw.random() * 0.05)  # anywhere in the next step, an evaluation or a save
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return bool(process.exitcode == -signal.SIGKILL)
    finally:
        pipe.close()
