"""One optimisation step: forward, backward, clip, update, companions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sentemb.distributed import any_device, average_gradients, with_zero_gradients
from sentemb.training.device import is_sharded, unsharded
from sentemb.training.gradcache import GradCache
from sentemb.training.inputs import StepInput
from sentemb.training.objective import Losses, Objective
from sentemb.training.settings import TrainSettings
from sentemb.types import Services


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What happened in one optimiser step."""

    parts: dict[str, Tensor]  # mean loss of every term (of a mixture SOURCE/TERM), on the device; empty where skipped
    gradient_norm: Tensor | None = None  # before it was clipped; None where nothing is clipped
    was_skipped: bool = False  # because a loss was not finite


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

    def __call__(self, inputs: Sequence[StepInput]) -> StepResult:
        """One optimiser step over ``gradient_accumulation`` batches.

        Raises:
            NumericError: a loss is not finite and ``on_nan`` is "stop".
        """
        batches = self.backward(inputs)
        total = torch.stack([losses.total.detach() for losses in batches]).sum()
        if any_device(not bool(torch.isfinite(total))):
            return self._skip(inputs, batches)
        norm = None
        if self.settings.max_grad_norm:
            norm = unsharded(self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))
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
        return StepResult(parts=means, gradient_norm=norm)

    def _skip(self, inputs: Sequence[StepInput], batches: Sequence[Losses]) -> StepResult:
        if self.settings.on_nan == "stop":
            are_finite = [not any_device(not bool(torch.isfinite(losses.total))) for losses in batches]
            bad = are_finite.index(False) if False in are_finite else 0
            raise self.objective.explain_non_finite(inputs[bad], batches[bad])
        self.optimizer.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # torch wonders that the optimiser did not step before
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            self.schedule.step()
        return StepResult(parts={}, was_skipped=True)

    def backward(self, inputs: Sequence[StepInput]) -> list[Losses]:
        """Leave the gradient of the batches' mean loss in the parameters, equal on every device."""
        share = 1 / len(inputs)
        if self.cache is not None:
            batches = [self.cache(batch, share) for batch in inputs]
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
