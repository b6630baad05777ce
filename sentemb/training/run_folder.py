"""A run's folder: what is written there, by the first device alone, and what a resumed run reads again.

    RUN/recipe.toml, run.json    what is trained, on what, with which versions
    RUN/metrics.jsonl            losses and scores (``Monitor``); at the end loss.svg, dev.svg
    RUN/checkpoints/step-…       see ``checkpoint``
    RUN/model                    the exported encoder; best.safetensors has its training heads and terms too
    RUN/result.json              how the run went; the last file, so that a run with it is finished
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor

from sentemb.distributed import broadcast_object, rank, say
from sentemb.encoder import Encoder
from sentemb.errors import CheckpointError
from sentemb.files import write_json, write_text
from sentemb.training import checkpoint
from sentemb.training.checkpoint import RunState
from sentemb.training.plan import TrainResult


class RunFolder:
    """The folder of one run; every device must call each method.

    What cannot be written (a full disk) is a ``CheckpointError`` on every device.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.checkpoints, self.model = path, path / "checkpoints", path / "model"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training here meanwhile; ``CheckpointError`` where one does."""
        lock = FileLock(self.path / ".lock")

        def acquire() -> None:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise OSError("another process is training there; wait for it, or choose another --output") from None

        try:
            _on_first_device(acquire, f"{self.path} cannot be used")
            yield
        finally:
            lock.release()

    def open_checkpoint(self, state: RunState) -> tuple[Path | None, RunState]:
        """The newest usable checkpoint, if there is one, and where that run stood.

        It must have been saved by the recipe and on the data of ``state``, or a ``CheckpointError`` says so.
        """
        path, warnings = broadcast_object(checkpoint.newest_checkpoint(self.checkpoints) if rank() == 0 else None)
        for warning in warnings:
            say(warning, level=logging.WARNING)
        if path is None:
            say("no checkpoint to resume from; starting at step 0")
            return None, state
        saved = RunState(**json.loads((path / "state.json").read_text())["state"])
        if saved.recipe_hash != state.recipe_hash:
            raise CheckpointError(
                f"{path}: was saved by another recipe; resume with the same recipe and --set values, or choose another "
                "--output"
            )
        if saved.data_hash != state.data_hash:
            raise CheckpointError(
                f"{path}: was saved on other data: the file changed, or the tokenizer; resume with the data of the "
                "start, or choose another --output"
            )
        if saved.devices != state.devices:
            say(f"resuming a run of {saved.devices} devices on {state.devices}: same batches, last bits may differ")
        saved.devices = state.devices
        return path, saved

    def save_checkpoint(
        self, step: int, files: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any], *, keep: int
    ) -> Path:
        """Write what ``checkpoint.collect`` gave and remove all but the newest ``keep`` checkpoints."""
        path = self.checkpoints / f"step-{step:08d}"

        def write() -> None:
            checkpoint.save_checkpoint(path, files, numbers)
            for old in sorted(self.checkpoints.glob("step-*"))[:-keep]:
                shutil.rmtree(old, ignore_errors=True)

        _save(write, f"step {step}: the checkpoint")
        return path

    def write_start(self, files: Mapping[str, str]) -> None:
        """Write what is known before the first step: texts by file name."""

        def write() -> None:
            for name, text in files.items():
                write_text(self.path / name, text)

        _save(write, "the recipe")

    def export(self, encoder: Encoder, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Write the encoder to ``model``, and all trained tensors to ``best.safetensors``."""

        def write() -> None:
            encoder.save(self.model)
            checkpoint.save_tensors(tensors, self.path / "best.safetensors")

        _save(write, f"step {step}: the model")

    def write_result(self, state: RunState, losses: Mapping[str, float], facts: Mapping[str, Any]) -> TrainResult:
        """Write ``result.json``; what it says."""
        result = TrainResult(
            model_dir=self.model, run_dir=self.path, steps=state.step, seconds=state.seconds,
            examples_per_second=state.examples / max(state.seconds, 1e-9), best_score=state.best_score,
            best_step=state.best_step, last_losses=losses, skipped_steps=state.skipped,
        )
        content = {**asdict(result), "model_dir": "model", "run_dir": ".", "recipe_hash": state.recipe_hash,
                   "data_hash": state.data_hash, "stopped": state.stopped, **facts}
        _save(lambda: write_json(self.path / "result.json", content), "the result")
        return result

    def read_result(self, state: RunState) -> TrainResult | None:
        """The result of the run that stands at ``state``, if it is finished."""
        result = None
        file = self.path / "result.json"
        if rank() == 0 and state.step and file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["recipe_hash"] == state.recipe_hash and content["steps"] == state.step:
                values = {name: content[name] for name in TrainResult.__dataclass_fields__}
                result = TrainResult(**{**values, "model_dir": self.model, "run_dir": self.path})
        finished: TrainResult | None = broadcast_object(result)
        return finished


def _save(write: Callable[[], None], what: str) -> None:
    advice = "What was saved before is untouched; make room, then run the same command with --resume"
    _on_first_device(write, f"{what} could not be saved", advice)


def _on_first_device(work: Callable[[], None], fault: str, advice: str = "") -> None:
    """Let the first device work; if it cannot, every device says so and stops."""
    message = None
    if rank() == 0:
        try:
            work()
        except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
            message = f"{fault}: {error}" + (f". {advice}" if advice else "")
    message = broadcast_object(message)
    if message is not None:
        raise CheckpointError(message)
