"""The training loop: one for every method. Devices, precision and trackers come from accelerate."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sentemb.data.batches import Batches
from sentemb.distributed import any_device, broadcast_object, devices, is_lost, rank
from sentemb.errors import CheckpointError, DeviceLost, Interrupted, RecipeError
from sentemb.files import write_json
from sentemb.training import generators
from sentemb.training.checkpoint import (
    RunState,
    checkpoint_path,
    load_checkpoint,
    newest_checkpoint,
    objective_state,
    rotate,
    save_checkpoint,
    save_tensors,
    take_snapshot,
)
from sentemb.training.device import build_accelerator, prepare, resolve_precision
from sentemb.training.gradcache import check_chunks
from sentemb.training.inputs import CPU_LENGTH_GROUPS, InputMaker, StepInput, prefetch
from sentemb.training.monitor import Monitor, draw_curve
from sentemb.training.objective import check_needs
from sentemb.training.optim import build_schedule
from sentemb.training.plan import Plan, TrainResult
from sentemb.training.services import build_services
from sentemb.training.signals import Signals
from sentemb.training.step import Step
from sentemb.training.whole import WholeEncoder


def run(plan: Plan, *, resume: bool = False) -> TrainResult:
    """Train to the end, or until interrupted.

    Args:
        plan: what to train.
        resume: continue from the run folder's newest usable checkpoint; start anew where there is none.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved first.
        NumericError: the loss is not finite.
        CheckpointError: ``resume`` and the checkpoint belongs to another recipe, or none could be saved.
        DeviceLost: another device ended or does not answer.
    """
    try:
        return _Run(plan, resume=resume).train()
    except RuntimeError as error:
        if not is_lost(error):
            raise
        newest, _ = newest_checkpoint(plan.run_dir / "checkpoints")
        saved = f"the newest checkpoint is {newest}" if newest else "no checkpoint was saved yet"
        raise DeviceLost(
            f"device {rank()} of {devices()}: another device ended or did not answer within train.device_timeout_s = "
            f"{plan.settings.device_timeout_s}; its own message, if it left one, says why. {saved}. Run the same "
            "command with --resume (torchrun --max-restarts N … --resume does so by itself)"
        ) from error


class _Run:
    def __init__(self, plan: Plan, *, resume: bool) -> None:
        self.plan, self.settings = plan, plan.settings
        self.checkpoints = plan.run_dir / "checkpoints"
        self.batches = Batches(
            plan.dataset,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            no_duplicates=self.settings.no_duplicates,
            drop_last=len(plan.dataset) >= self.settings.batch_size,
        )
        per_epoch = len(self.batches) // self.settings.gradient_accumulation
        if per_epoch == 0:
            raise RecipeError(
                f"{len(plan.dataset)} examples make no batch of {self.settings.batch_size} × gradient_accumulation "
                f"{self.settings.gradient_accumulation}; lower train.batch_size or give more data"
            )
        if int(self.batches.sizes.min()) < devices():
            raise RecipeError(
                f"a batch of {int(self.batches.sizes.min())} examples cannot be dealt to {devices()} devices; raise "
                "train.batch_size or start fewer processes"
            )
        self.steps_per_epoch = per_epoch
        self.total_steps = min(self.settings.epochs * per_epoch, self.settings.max_steps or 10**12)
        self.precision = resolve_precision(self.settings.precision)
        self.accelerator = build_accelerator(self.settings, self.precision, plan)
        generators.seed_all(self.settings.seed, rank())
        self._build()
        self.state = RunState(0, 0, None, None, 0, plan.recipe_hash, devices())
        if resume:
            self._resume()
        self._signal: int | None = None

    def _build(self) -> None:
        plan, device = self.plan, self.accelerator.device
        plan.encoder.module.to(device)
        plan.objective.to(device)
        services = build_services(plan, device)
        for companion in plan.objective.companions.values():
            companion.prepare(plan.dataset, services)  # type: ignore[operator]
        self._describe_companions()
        plan.objective.to(device).train()
        self.make_input = InputMaker(
            plan.dataset,
            plan.maker,
            plan.copies,
            plan.encoder.vocabulary,
            dict(plan.objective.companions.items()),  # type: ignore[arg-type]
            self.settings.seed,
            plan.objective.embedded,
            plan.objective.read,
            1 if device.type == "cuda" else CPU_LENGTH_GROUPS,
            self.settings.chunk_size,
            self.settings.chunk_tokens,
            self.settings.shard and devices() > 1,
        )
        self._check_first_batch()
        if self.settings.chunk_size is not None or self.settings.chunk_tokens is not None:
            check_chunks(plan.objective)
        backbone: Any = plan.encoder.module.backbone
        if self.settings.gradient_checkpointing:
            backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if self.settings.compile:
            backbone.compile(dynamic=True)
        self.reader = WholeEncoder(plan.encoder, is_sharded=self.settings.shard and devices() > 1)
        model, optimizer, self.optimizer = prepare(plan.objective, self.settings, self.accelerator)
        self.schedule = build_schedule(optimizer, self.settings, self.total_steps)
        self.step = Step(plan.objective, model, self.optimizer, self.schedule, self.accelerator, self.settings)

    def _describe_companions(self) -> None:
        """What companions fitted, for a reader: ``companions.json``."""
        found = {name: part.summary() for name, part in self.plan.objective.companions.items()}  # type: ignore[operator]
        if rank() == 0 and any(found.values()):
            write_json(self.plan.run_dir / "companions.json", {name: facts for name, facts in found.items() if facts})

    def _check_first_batch(self) -> None:
        """The views that the first batch really makes must meet what the parts claim to need."""
        rows = next(iter(self.batches.epoch(0)))
        views = self.make_input(rows, 0).text
        check_needs(self.plan.objective, tuple(views), tuple(self.plan.objective.companions))

    # ------------------------------------------------------------------------------------------- resume
    def _resume(self) -> None:
        path, warnings = broadcast_object(newest_checkpoint(self.checkpoints) if rank() == 0 else None)
        for warning in warnings:
            self._say(f"warning: {warning}")
        if path is None:
            self._say("no checkpoint to resume from; starting at step 0")
            return
        state, saved = load_checkpoint(
            path, objective=self.plan.objective, optimizer=self.step.plain_optimizer, schedule=self.schedule
        )
        if state.recipe_hash != self.plan.recipe_hash:
            raise CheckpointError(
                f"{path}: was saved by another recipe (hash {state.recipe_hash[:12]}, this one is "
                f"{self.plan.recipe_hash[:12]}); resume with the same recipe and --set values, or choose another "
                "--output"
            )
        if state.devices != devices():
            self._say(f"resuming a run of {state.devices} devices on {devices()}: same batches, last bits may differ")
        generators.restore(saved.get(rank()), self.accelerator.device)
        self.state = state
        self._say(f"resumed at step {state.step} of {self.total_steps} from {path}")

    # -------------------------------------------------------------------------------------------- train
    def train(self) -> TrainResult:
        """Run what is left of the run."""
        started, first = time.monotonic(), self.state.step
        plan, settings = self.plan, self.settings
        parts: dict[str, Any] = {}
        with (
            Signals(self._note_signal),
            Monitor(
                plan.run_dir, total_steps=self.total_steps, first_step=first, log_every=settings.log_every,
                accelerator=self.accelerator, is_main=rank() == 0,
            ) as monitor,
        ):
            inputs = prefetch(self._inputs())
            try:
                for group in _grouped(inputs, settings.gradient_accumulation):
                    result = self.step([batch.to(self.accelerator.device) for batch in group])
                    parts = result.parts or parts
                    self._advance(skipped=result.was_skipped)
                    monitor.step(self.state.step, parts, float(self.schedule.get_last_lr()[0]))
                    if settings.eval_every and self.state.step % settings.eval_every == 0:
                        self._evaluate(monitor)
                    if self._wants_checkpoint():
                        self._save(monitor)
                    self._stop_if_asked(monitor)
                    if self._has_lost_patience():
                        self._say(f"early stop: {settings.patience} evaluations without a better dev score")
                        break
            finally:
                inputs.close()
            self._finish(monitor)
        seconds = time.monotonic() - started
        return self._result(seconds, self.state.step - first, {name: float(value) for name, value in parts.items()})

    def _inputs(self) -> Iterator[StepInput]:
        """Inputs from where the run stands to its end."""
        accumulation = self.settings.gradient_accumulation
        per_epoch = self.steps_per_epoch * accumulation
        micro = self.state.step * accumulation
        while micro < self.total_steps * accumulation:
            epoch, start = divmod(micro, per_epoch)
            stop = min(per_epoch, self.total_steps * accumulation - epoch * per_epoch)
            for rows in itertools.islice(self.batches.epoch(epoch, start=start), stop - start):
                yield self.make_input(rows, micro, rank=rank(), devices=devices())
                micro += 1

    def _advance(self, *, skipped: bool) -> None:
        state = self.state
        self._replace(step=state.step + 1, micro_step=(state.step + 1) * self.settings.gradient_accumulation,
                      skipped=state.skipped + skipped)

    def _replace(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    # --------------------------------------------------------------------------------------- evaluation
    def _evaluate(self, monitor: Monitor) -> None:
        if self.plan.dev is None:
            return
        self.step.settle()
        encoder, score = self.reader.read(), None
        if rank() == 0:
            with generators.untouched(self.accelerator.device):
                self.plan.objective.eval()
                score = float(self.plan.dev(encoder))
                self.plan.objective.train()
        score = broadcast_object(score)
        is_best = self.state.best_score is None or score > self.state.best_score
        if is_best:
            self._replace(best_score=score, best_step=self.state.step, evaluations_since_best=0)
            self._export()
        else:
            self._replace(evaluations_since_best=self.state.evaluations_since_best + 1)
        monitor.dev(self.state.step, score, is_best=is_best)

    def _has_lost_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.state.evaluations_since_best >= patience

    def _export(self) -> None:
        """The encoder as it is now becomes ``RUN/model``; with training heads and terms, ``RUN/best.safetensors``."""
        encoder, state = self.reader.read(), objective_state(self.plan.objective)

        def write() -> None:
            was_training = self.plan.objective.training
            self.plan.objective.eval()
            encoder.save(self.plan.run_dir / "model")
            save_tensors(state, self.plan.run_dir / "best.safetensors")
            self.plan.objective.train(was_training)

        self._on_first_device(write, "the model")

    def _on_first_device(self, write: Callable[[], None], what: str) -> None:
        """Let the first device write; if it cannot (a full disk), every device says so and stops.

        Raises:
            CheckpointError: what was written before is untouched.
        """
        fault = None
        if rank() == 0:
            try:
                write()
            except OSError as error:
                fault = str(error)
        fault = broadcast_object(fault)
        if fault is not None:
            raise CheckpointError(
                f"step {self.state.step}: {what} could not be saved: {fault}. What was saved before is untouched; "
                "make room, then run the same command with --resume"
            )

    # -------------------------------------------------------------------------------------- checkpoints
    def _wants_checkpoint(self) -> bool:
        every = self.settings.save_every or self.settings.eval_every
        return every is not None and self.state.step % every == 0 and self.state.step < self.total_steps

    def _save(self, monitor: Monitor) -> Path:
        self.step.settle()
        monitor.sync()
        snapshot = take_snapshot(self.plan.objective, self.step.plain_optimizer, self.schedule)
        states = generators.collect(self.accelerator.device)

        def write() -> None:
            save_checkpoint(self.checkpoints, snapshot, state=self.state, generators=states)
            rotate(self.checkpoints, self.settings.keep_checkpoints)

        self._on_first_device(write, "the checkpoint")
        return checkpoint_path(self.checkpoints, self.state.step)

    def _note_signal(self, number: int) -> None:
        self._signal = number

    def _stop_if_asked(self, monitor: Monitor) -> None:
        # asking the other devices makes this one wait, so it is not done after every step
        if devices() > 1 and self.state.step % self.settings.log_every:
            return
        if not any_device(self._signal is not None):
            return
        path = self._save(monitor)
        name = signal.Signals(self._signal or signal.SIGTERM).name
        raise Interrupted(
            f"stopped by {name} at step {self.state.step} of {self.total_steps}; saved {path}. "
            "To continue, run the same command with --resume"
        )

    # ---------------------------------------------------------------------------------------------- end
    def _finish(self, monitor: Monitor) -> None:
        """Last evaluation, export, checkpoint, curve."""
        self.step.settle()
        if self.plan.dev is not None and self.state.best_step != self.state.step:
            every = self.settings.eval_every
            if every is None or self.state.step % every:
                self._evaluate(monitor)
        if self.state.best_step is None:
            self._export()
        self._replace(is_finished=True)
        self._save(monitor)
        # accelerate's end_training would also leave the process group, which the result still needs
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if rank() == 0:
            draw_curve(self.plan.run_dir)

    def _result(self, seconds: float, steps: int, losses: dict[str, float]) -> TrainResult:
        settings = self.settings
        examples = steps * settings.batch_size * settings.gradient_accumulation
        result = TrainResult(
            model_dir=self.plan.run_dir / "model", run_dir=self.plan.run_dir, steps=self.state.step, seconds=seconds,
            examples_per_second=examples / max(seconds, 1e-9), best_score=self.state.best_score,
            best_step=self.state.best_step, last_losses=losses, skipped_steps=self.state.skipped,
        )
        if rank() == 0:
            write_json(
                self.plan.run_dir / "result.json",
                {
                    "recipe_hash": self.plan.recipe_hash, "steps": result.steps, "seconds": round(seconds, 2),
                    "examples_per_second": round(result.examples_per_second, 2), "dev": self.plan.dev_name,
                    "best_score": result.best_score, "best_step": result.best_step, "last_losses": losses,
                    "skipped_steps": result.skipped_steps, "precision": self.precision, "devices": devices(),
                    "device": str(self.accelerator.device), "threads": torch.get_num_threads(),
                },
            )
        return result

    def _say(self, line: str) -> None:
        if rank() == 0:
            sys.stderr.write(line + "\n")


def _grouped(inputs: Iterator[StepInput], size: int) -> Iterator[list[StepInput]]:
    while group := list(itertools.islice(inputs, size)):
        yield group
