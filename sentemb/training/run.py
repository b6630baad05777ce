"""A training run: one loop for every method. Devices, precision and trackers come from accelerate."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from sentemb.distributed import all_objects, any_device, broadcast_object, devices, is_lost, rank, say
from sentemb.errors import DeviceLost, Interrupted, NumericError, OutOfMemory, first_line
from sentemb.machine.resources import is_out_of_memory
from sentemb.stopping import StopRequest, noted
from sentemb.training.callbacks import Callback, CheckpointEvent, EarlyStopping, EndEvent, EvaluationEvent, StepEvent
from sentemb.training.checkpoint import (
    RunState,
    collect,
    hash_of_data,
    load_checkpoint,
    newest_checkpoint,
    objective_state,
)
from sentemb.training.device import UnshardedEncoder, build_accelerator, prepare, resolve_precision, restore_generators
from sentemb.training.gradcache import check_backbone
from sentemb.training.inputs import Feed, StepInput
from sentemb.training.monitor import Monitor
from sentemb.training.optimizers import rate_factor
from sentemb.training.plan import Plan, TrainResult, build_services
from sentemb.training.run_folder import RunFolder
from sentemb.training.step import Step, StepResult

SAVE_EVERY_S = 600.0  # between checkpoints, where neither save_every nor eval_every says when


def run(plan: Plan, *, resume: bool = False) -> TrainResult:
    """Train to the end, or until interrupted; no other process may train in the same folder meanwhile.

    ``resume`` continues from the run folder's newest usable checkpoint, and starts anew where there is none.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved first.
        NumericError: a loss or the trained weights are not finite.
        CheckpointError: the checkpoint belongs to another recipe or other data; something could not be saved; another
            process trains in the folder.
        DeviceLost: another device ended or does not answer.
        OutOfMemory: memory does not suffice, in a step also with half as many texts at a time.
    """
    try:
        with RunFolder(plan.run_dir).locked():
            return Run(plan, resume=resume).train()
    except (RuntimeError, MemoryError) as error:
        if not is_lost(error) and not is_out_of_memory(error):
            raise
        newest, _ = newest_checkpoint(plan.run_dir / "checkpoints")
        saved = f"the newest checkpoint is {newest}" if newest else "no checkpoint was saved yet"
        if is_out_of_memory(error):
            raise OutOfMemory(f"out of memory ({first_line(error)}); {saved}. Free memory, or set train.chunk_size, a "
                              "smaller train.batch_size or backbone") from error
        raise DeviceLost(
            f"device {rank()} of {devices()}: another device ended or did not answer within train.device_timeout_s = "
            f"{plan.settings.device_timeout_s}; its own message, if it left one, says why. {saved}. Run the same "
            "command with --resume (torchrun --max-restarts N … --resume does so by itself)"
        ) from error


class Run:
    """One training: encoder, data, objective, optimizer and where it stands.

        run = Run(plan)
        run.train()                              # to the end: evaluations, checkpoints, the exported model

        for batches in run.inputs():             # or step by step; one item has the batches of an optimiser step
            result = run.train_step(batches)

    ``resume`` continues from the run folder's newest usable checkpoint, which must be of the same recipe and data.
    Nothing is written before ``train``.
    """

    def __init__(self, plan: Plan, *, resume: bool = False) -> None:
        self.plan, self.settings, self.folder = plan, plan.settings, RunFolder(plan.run_dir)
        self.feed = Feed(plan)
        self.make_input = self.feed.make_input
        self.precision = resolve_precision(self.settings.precision)
        self.accelerator = build_accelerator(self.settings, self.precision, run_dir=plan.run_dir, recipe=plan.recipe)
        self.device: torch.device = self.accelerator.device
        torch.manual_seed(self.settings.seed + 1_000_003 * rank())  # another dropout on every device
        self.state = RunState(recipe_hash=plan.recipe_hash, data_hash=hash_of_data(plan.dataset), devices=devices())
        self._checkpoint: Path | None = None  # the newest one
        if resume:
            self._checkpoint, self.state = self.folder.open_checkpoint(self.state)
        self._build()
        if self._checkpoint is not None:
            drawn = load_checkpoint(
                self._checkpoint, objective=plan.objective, optimizer=self.step.plain_optimizer, schedule=self.schedule
            )
            if drawn is not None:  # a device that is new keeps its seed
                restore_generators(drawn, self.device)
            if self.state.chunk_size and devices() == 1:
                self.step.halve(self.state.chunk_size)
            say(f"resumed at step {self.state.step} of {self.total_steps} from {self._checkpoint}")
        self.callbacks: list[Callback] = [*(part.fresh() for part in self.settings.callbacks), *plan.callbacks]
        if self.settings.patience:
            self.callbacks.append(EarlyStopping(patience=self.settings.patience))
        self.last_losses: dict[str, torch.Tensor] = {}
        self._reason: str | None = None  # why a callback wants to stop
        self._counted = self._saved = time.monotonic()

    def _build(self) -> None:
        plan, settings, is_sharded = self.plan, self.settings, self.settings.shard and devices() > 1
        plan.encoder.module.to(self.device)
        plan.objective.to(self.device)
        self.unsharded = UnshardedEncoder(plan.encoder, is_sharded=is_sharded)
        services = build_services(plan.encoders, self.unsharded)
        for part in plan.objective.parts:
            part.prepare(plan.dataset, services)
        plan.objective.to(self.device).train()
        self.feed.prepare()
        self.total_steps = self.feed.total_steps
        backbone: Any = plan.encoder.module.backbone
        if settings.chunk_size:
            check_backbone(backbone)
        if settings.gradient_checkpointing:
            # older releases of transformers know the second name only, newer ones warn of it
            name = "activation" if hasattr(backbone, "activation_checkpointing_enable") else "gradient"
            getattr(backbone, f"{name}_checkpointing_enable")({"use_reentrant": False})
        if settings.compile:
            backbone.compile(dynamic=True)
        model, optimizer, self.optimizer = prepare(plan.objective, settings, self.accelerator)
        factor = rate_factor(settings.schedule, warmup_fraction=settings.warmup_fraction, total_steps=self.total_steps)
        self.schedule = LambdaLR(optimizer, factor)
        self.step = Step(
            plan.objective, model=model, optimizer=self.optimizer, schedule=self.schedule,
            accelerator=self.accelerator, settings=settings, services=services,
        )

    def train(self) -> TrainResult:
        """Run to the end; of a run that was finished before, only its result is read. Raises what ``run`` does."""
        finished = self.folder.read_result(self.state)
        if finished is not None:
            say(f"{self.folder.path}: this run is finished; nothing is left to do")
            return finished
        self.folder.write_start(self.plan.files)
        self._counted = self._saved = time.monotonic()
        with ExitStack() as stack:
            request = stack.enter_context(noted())
            if rank() == 0:
                monitor = Monitor(
                    self.folder.path, total_steps=self.total_steps, first_step=self.state.step,
                    log_every=self.settings.log_every, accelerator=self.accelerator,
                )
                self.callbacks.insert(0, stack.enter_context(monitor))
                stack.callback(self.callbacks.remove, monitor)
            if self.state.best_step == self.state.step > 0:
                self.export()  # the checkpoint holds the best model, and the process may have ended before its export
            inputs = self.inputs()
            stack.callback(inputs.close)
            for batches in inputs:
                self.train_step(batches)
                if self._after_step(request):
                    break
            return self._finish()

    def inputs(self) -> Generator[list[StepInput], None, None]:
        """The batches of each optimiser step from where the run stands to its end."""
        return self.feed.steps(self.total_steps if self.state.stopped else self.state.step)

    def train_step(self, batches: Sequence[StepInput]) -> StepResult:
        """One optimiser step: the weights move, ``state`` counts it, and callbacks hear of it."""
        result = self.step([batch.to(self.device) for batch in batches])
        self.last_losses |= result.parts  # a source of a mixture has its turn in some steps only
        now = time.monotonic()
        self.state.step += 1
        self.state.skipped += result.was_skipped
        self.state.chunk_size = self.step.halved
        self.state.examples += sum(sum(batch.sizes) for batch in batches)
        self.state.seconds += now - self._counted
        self._counted, rate = now, float(self.schedule.get_last_lr()[0])
        event = StepEvent(
            step=self.state.step, total_steps=self.total_steps, losses=result.parts, learning_rate=rate,
            gradient_norm=result.gradient_norm, examples=_by_source(batches),
        )
        self._tell(lambda callback: callback.on_step(event))
        return result

    def _after_step(self, request: StopRequest) -> bool:
        """Evaluate, save and export where it is time to; whether training ends here."""
        step, settings = self.state.step, self.settings
        is_evaluated = settings.eval_every is not None and step % settings.eval_every == 0
        is_best = is_evaluated and self.evaluate()
        save_every = settings.save_every or settings.eval_every
        is_due = step % save_every == 0 if save_every else time.monotonic() - self._saved > SAVE_EVERY_S
        signal, reason = request.signal, self._reason
        if devices() > 1:
            # asking the other devices makes this one wait, so it is not done after every step
            if is_evaluated or (save_every and is_due) or step % settings.log_every == 0:
                answers = all_objects((signal, reason, is_due))
                signal = next((signal for signal, _, _ in answers if signal), None)
                reason, is_due = answers[0][1:]
            else:
                signal, reason, is_due = None, None, False
        # a full disk while a model is exported must not lose the run
        is_first = is_best and self._checkpoint is None
        if signal or is_first or (is_due and step < self.total_steps and not reason):
            self.save()
        if is_best:
            self.export()
        if signal:
            raise Interrupted(
                f"stopped by {signal} at step {step} of {self.total_steps}; saved {self._checkpoint}. "
                "To continue, run the same command with --resume"
            )
        if reason:
            say(reason)
            self.state.stopped = reason
        return reason is not None

    def _finish(self) -> TrainResult:
        """Last evaluation, checkpoint, export, result."""
        is_best = self.state.evaluated_step != self.state.step and self.evaluate()
        self._check_finite()
        self.save()
        if is_best or self.state.best_step is None:
            self.export()
        event = EndEvent(step=self.state.step, model_dir=self.folder.model, stopped=self.state.stopped)
        self._tell(lambda callback: callback.on_end(event))
        facts = {
            "precision": self.precision, "devices": devices(), "device": str(self.device),
            "threads": torch.get_num_threads(),
        }
        losses = {name: float(value) for name, value in self.last_losses.items()}
        return self.folder.write_result(self.state, losses, facts)

    def evaluate(self) -> bool:
        """Evaluate the model as it is now, where there is a dev set; whether it is the best one so far."""
        if self.plan.dev is None:
            return False
        encoder, scores = self.unsharded.read(), None
        if rank() == 0:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                self.plan.objective.eval()
                scores = self.plan.dev(encoder)
                self.plan.objective.train()
        scores = broadcast_object(scores)
        state = self.state
        is_best = state.best_score is None or scores.value > state.best_score
        state.evaluated_step, state.evaluations_since_best = state.step, state.evaluations_since_best + 1
        if is_best:
            state.best_score, state.best_step, state.evaluations_since_best = scores.value, state.step, 0
        event = EvaluationEvent(
            step=state.step, score=scores.value, scores=scores.scores, is_best=is_best,
            evaluations_since_best=state.evaluations_since_best,
        )
        self._tell(lambda callback: callback.on_evaluation(event))
        return is_best

    def _tell(self, tell: Callable[[Callback], str | None]) -> None:
        for callback in self.callbacks if rank() == 0 else ():
            self._reason = tell(callback) or self._reason

    def save(self) -> Path:
        """Write a checkpoint of the run as it is now; its folder."""
        step, keep, optimizer = self.state.step, self.settings.keep_checkpoints, self.step.plain_optimizer
        files, numbers = collect(self.state, self.plan.objective, optimizer, self.schedule, self.device)
        folder = self._checkpoint = self.folder.save_checkpoint(step, files, numbers, keep=keep)
        self._saved = time.monotonic()
        self._tell(lambda callback: callback.on_checkpoint(CheckpointEvent(step=step, folder=folder)))
        return folder

    def export(self) -> None:
        """Write the encoder as it is now to ``RUN/model``, and all trained tensors to ``RUN/best.safetensors``."""
        self._check_finite()
        tensors, was_training = objective_state(self.plan.objective), self.plan.objective.training
        self.plan.objective.eval()
        self.folder.export(self.unsharded.read(), tensors, step=self.state.step)
        self.plan.objective.train(was_training)

    def _check_finite(self) -> None:
        """Refuse weights that are no numbers, and those of a run that never learned."""
        values = [getattr(value, "_local_tensor", value) for value in self.plan.objective.parameters()]
        is_broken = any_device(not all(bool(value.isfinite().all()) for value in values))
        if is_broken or (self.state.step and self.state.skipped == self.state.step):
            fault = "the weights are not finite" if is_broken else "the loss of every step was not finite"
            raise NumericError(
                f"step {self.state.step}: {fault} ({self.state.skipped} steps were skipped), so no model is exported. "
                'Lower train.learning_rate or use train.precision = "fp32", and start the run again'
            )


def _by_source(batches: Sequence[StepInput]) -> Counter[str]:
    """Examples of a step by source of a mixture; none outside a mixture."""
    counts: Counter[str] = Counter()
    for batch in batches:
        if batch.source:
            counts[batch.source] += sum(batch.sizes)
    return counts
