"""One optimisation step: forward, backward, clip, update, companions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.distributed import any_device, average_gradients, devices, say, with_zero_gradients
from sentemb.errors import NumericError, OutOfMemory, RecipeError, first_line
from sentemb.machine.resources import is_out_of_memory
from sentemb.training.device import generator_states, is_sharded, restore_generators, unsharded
from sentemb.training.gradcache import GradCache, check_backbone
from sentemb.training.inputs import StepInput
from sentemb.training.objective import Losses, Objective
from sentemb.training.settings import TrainSettings
from sentemb.types import Services

Statistics = Sequence[tuple[Tensor, Tensor]]  # buffers, and what they held before


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What happened in one optimiser step."""

    parts: dict[str, Tensor]  # mean loss of every term (of a mixture SOURCE/TERM), on the device; empty where skipped
    gradient_norm: Tensor | None = None  # before it was clipped; None where nothing is clipped
    was_skipped: bool = False  # because a loss or the gradient was not finite


class Step:
    """Forward, backward and update over the batches of one optimiser step.

    ``model`` and ``optimizer`` are as accelerate wrapped them; on one device ``model`` is ``objective`` itself.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        model: Any,
        optimizer: Any,
        schedule: Any,
        accelerator: Any,
        settings: TrainSettings,
        services: Services,
    ) -> None:
        self.objective, self.model, self.services = objective, model, services
        self.optimizer, self.schedule = optimizer, schedule
        self.accelerator, self.settings = accelerator, settings
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.plain_optimizer: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
        has_ddp = model is not objective
        # whose gradients neither DDP nor FSDP averages over devices
        self.unaveraged = [] if has_ddp else [value for value in self.parameters if not is_sharded(value)]
        self.touched = self.parameters if has_ddp else []
        self.cache: GradCache | None = None
        if settings.chunk_size:
            self.cache = GradCache(objective, accelerator)
        self.halved: int | None = None  # texts at a time since memory did not suffice
        # with the only state that a forward pass changes: running statistics
        self.batch_norms = [one for one in objective.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]

    def __call__(self, inputs: Sequence[StepInput]) -> StepResult:
        """One optimiser step over ``gradient_accumulation`` batches.

        Raises:
            NumericError: a loss or the gradient is not finite and ``on_nan`` is "stop".
            OutOfMemory: also with half as many texts at a time, or those cannot be halved.
        """
        statistics = [(value, value.clone()) for norm in self.batch_norms for value in norm.buffers()]
        batches = self._backward_that_fits(inputs, statistics)
        is_finite = torch.stack([losses.total.detach() for losses in batches]).sum().isfinite()
        scales = self.accelerator.scaler is not None  # fp16: an infinite gradient makes it skip the step by itself
        norm = None if scales else self._clip()
        if norm is not None:  # a NaN may come from behind a finite loss, and would be in all weights for good
            is_finite = is_finite & norm.isfinite()
        if any_device(not bool(is_finite)):
            _restore(statistics)
            return self._skip(inputs, batches)
        if scales and self.settings.max_grad_norm:
            norm = self._clip()
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        for losses in batches:
            self.objective.after_step(losses.batch, self.services)
        values: dict[str, list[Tensor]] = {}
        for losses in batches:
            source = losses.batch.source
            for name, value in losses.parts.items():
                values.setdefault(f"{source}/{name}" if source else name, []).append(value)
        means = {name: torch.stack(values[name]).mean() for name in values}
        return StepResult(parts=means, gradient_norm=norm if self.settings.max_grad_norm else None)

    def _clip(self) -> Tensor:
        """Shorten the gradient to ``max_grad_norm``, where there is one; the norm that it had."""
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm or float("inf"))
        return unsharded(norm)

    def _skip(self, inputs: Sequence[StepInput], batches: Sequence[Losses]) -> StepResult:
        if self.settings.on_nan == "stop":
            are_finite = [not any_device(not bool(torch.isfinite(losses.total))) for losses in batches]
            if all(are_finite):
                raise NumericError(
                    f"step {inputs[0].step // len(inputs)}: the loss is finite, but its gradient is not; use "
                    'train.precision = "fp32" or a higher temperature, or, if it is rare, train.on_nan = "skip"'
                )
            bad = are_finite.index(False)
            raise self.objective.explain_non_finite(inputs[bad], batches[bad])
        self.optimizer.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # torch wonders that the optimiser did not step before
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            self.schedule.step()
        return StepResult(parts={}, was_skipped=True)

    def _backward_that_fits(self, inputs: Sequence[StepInput], statistics: Statistics) -> list[Losses]:
        """``backward``; where memory does not suffice, once more from the same state with half as many texts at a time,
        as in all steps that follow. ``statistics`` are those from before."""
        device = self.accelerator.device
        drawn = generator_states(device)
        try:
            return self.backward(inputs)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.halve(self._half(inputs, first_line(error)))
        # here the error is gone, and with it what the failed attempt held
        self.optimizer.zero_grad(set_to_none=True)
        restore_generators(drawn, device)
        _restore(statistics)
        return self._backward_that_fits(inputs, statistics)

    def halve(self, texts: int) -> None:
        """From now on encode so many texts at a time; the gradients stay those of the batch."""
        self.halved, self.cache = texts, self.cache or GradCache(self.objective, self.accelerator)

    def _half(self, inputs: Sequence[StepInput], said: str) -> int:
        """How many texts at a time to try next; raises ``OutOfMemory`` where it was tried, or chunks are impossible."""
        together = [sum(len(group.rows) for group in batch.groups) for batch in inputs]
        texts = max(together) if self.cache is None else self.halved or self.settings.chunk_size or 1
        where = f"step {inputs[0].step // len(inputs)}: out of memory ({said}) with {texts} texts at a time"
        smaller = f"lower train.batch_size (now {self.settings.batch_size}) or data.max_tokens"
        if self.halved is not None or texts == 1:
            raise OutOfMemory(f"{where}. Start again with a smaller train.chunk_size, or {smaller}")
        if devices() > 1:
            raise OutOfMemory(f"{where}. Start again with train.chunk_size = {-(-texts // 2)} (same gradients)")
        if any(batch.use.separate for batch in inputs):
            raise OutOfMemory(f"{where}. A term reads hidden states, so train.chunk_size is not possible: set "
                              f"train.gradient_checkpointing = true, or {smaller}")
        encoder: Any = self.objective.encoder
        try:
            check_backbone(encoder.backbone)
        except RecipeError as error:
            raise OutOfMemory(f"{where}. {error}, and {smaller}") from None
        half = -(-texts // 2)
        say(f"{where}. From here on it is {half}, with the same gradients; train.chunk_size = {half} begins so",
            level=logging.WARNING)
        return half

    def backward(self, inputs: Sequence[StepInput]) -> list[Losses]:
        """Leave the gradient of the batches' mean loss in the parameters, equal on every device."""
        share = 1 / len(inputs)
        if self.cache is not None:
            chunked = inputs if self.halved is None else [batch.in_chunks(self.halved) for batch in inputs]
            batches = [self.cache(batch, share) for batch in chunked]
        else:
            *earlier, last = inputs
            with self._without_averaging():
                batches = [self._backward(batch, share) for batch in earlier]
            batches.append(self._backward(last, share))
        average_gradients(self.unaveraged)
        return batches

    def _backward(self, inputs: StepInput, share: float) -> Losses:
        losses: Losses = self.model(inputs)
        self.accelerator.backward(with_zero_gradients(losses.total * share, self.touched))
        return losses

    def _without_averaging(self) -> AbstractContextManager[None]:
        """DDP averages gradients after every backward; those of accumulated batches can wait for the last one."""
        if not self.touched:
            return nullcontext()
        without: AbstractContextManager[None] = self.accelerator.no_sync(self.model)
        return without


def _restore(statistics: Statistics) -> None:
    """Give running statistics their values from before a forward pass that does not count."""
    for value, before in statistics:
        value.copy_(before)
