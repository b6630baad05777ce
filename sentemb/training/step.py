"""One optimisation step: forward, backward, clip, update, companions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sentemb.distributed import any_device, average_gradients, devices, sum_over_devices, touch
from sentemb.training.device import is_sharded
from sentemb.training.gradcache import GradCache
from sentemb.training.inputs import StepInput
from sentemb.training.objective import Losses, Objective
from sentemb.training.settings import TrainSettings


@dataclass(frozen=True)
class StepResult:
    """What happened: losses by part (device tensors), or that the step was left out."""

    parts: dict[str, Tensor]
    was_skipped: bool = False


class Step:
    """The common step. ``model`` is what accelerate made of ``objective`` (the same object on one device).

    A loss that is not finite is noticed at once on a CPU and where ``on_nan`` is "skip". On a GPU with "stop", looking
    would make every step wait for the device, so the loss is looked at one step later; ``settle`` looks at once and
    is called before anything is saved or evaluated.
    """

    def __init__(
        self, objective: Objective, model: Any, optimizer: Any, schedule: Any, accelerator: Any, settings: TrainSettings
    ) -> None:
        self.objective, self.model = objective, model
        self.optimizer, self.schedule = optimizer, schedule
        self.accelerator, self.settings = accelerator, settings
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.plain_optimizer: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
        self.is_sharded = any(is_sharded(parameter) for parameter in self.parameters)
        self.looks_later = settings.on_nan == "stop" and accelerator.device.type == "cuda"
        self._unseen: tuple[Tensor, Sequence[Losses]] | None = None
        self.cache: GradCache | None = None
        if settings.chunk_size is not None or settings.chunk_tokens is not None:
            self.cache = GradCache(model, accelerator, kept_graphs_mib=settings.kept_graphs_mib)

    def __call__(self, inputs: Sequence[StepInput]) -> StepResult:
        """One optimiser step over ``gradient_accumulation`` batches.

        Raises:
            NumericError: the loss is not finite and ``on_nan`` is "stop".
        """
        done = self.backward(inputs)
        if self._is_bad(done):
            self.optimizer.zero_grad(set_to_none=True)
            with warnings.catch_warnings():
                # torch wonders that the optimiser did not step before
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
                self.schedule.step()
            return StepResult({}, was_skipped=True)
        if self.settings.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        for losses in done:
            self.objective.after_step(losses.batch)
        names = done[0].parts
        return StepResult({name: torch.stack([losses.parts[name] for losses in done]).mean() for name in names})

    # ---------------------------------------------------------------------------------------- gradients
    def backward(self, inputs: Sequence[StepInput]) -> list[Losses]:
        """Leave the gradient of the batches' mean loss in the parameters, equal on every device."""
        share = 1 / len(inputs)
        if self.cache is None:
            done = [
                self._backward(batch, share, is_last=place == len(inputs) - 1) for place, batch in enumerate(inputs)
            ]
        else:
            with self._local_gradients():
                done = [self.cache(batch, share) for batch in inputs]
            self._synchronise()
        if self.is_sharded:
            average_gradients([parameter for parameter in self.parameters if not is_sharded(parameter)])
        return done

    def _backward(self, inputs: StepInput, share: float, *, is_last: bool) -> Losses:
        with nullcontext() if is_last else self._local_gradients():
            losses: Losses = self.model(Objective.losses, inputs)
            total = losses.total * share
            self.accelerator.backward(total if self.is_sharded else touch(total, self.parameters))
        return losses

    def _local_gradients(self) -> AbstractContextManager[None]:
        """DDP leaves gradients where they are; FSDP deals them out after every backward, which is as exact."""
        no_sync: AbstractContextManager[None] = self.accelerator.no_sync(self.model)
        return no_sync

    def _synchronise(self) -> None:
        """Let DDP average what the chunks left in the gradients: a backward of zeros through all parameters."""
        if devices() > 1 and not self.is_sharded:
            zero: Tensor = self.model(Objective.zero)
            touch(zero, self.parameters).backward()

    # --------------------------------------------------------------------------------------- not a number
    def settle(self) -> None:
        """Look at a loss that was not looked at yet.

        Raises:
            NumericError: it is not finite.
        """
        unseen, self._unseen = self._unseen, None
        if unseen is not None and not bool(unseen[0]):
            self._explain(unseen[1])

    def _is_bad(self, done: Sequence[Losses]) -> bool:
        """Whether a loss is not finite on any device."""
        total = torch.stack([losses.total.detach() for losses in done]).sum()
        if self.looks_later:
            # the sum over devices and the copy are queued behind the step; nobody waits for them here
            self.settle()
            is_fine = torch.isfinite(sum_over_devices(total)).to("cpu", non_blocking=True)
            self._unseen = (is_fine, [losses.without_graph() for losses in done])
            return False
        if not any_device(not bool(torch.isfinite(total))):
            return False
        if self.settings.on_nan == "skip":
            return True
        self._explain(done)
        raise AssertionError("unreachable")

    def _explain(self, done: Sequence[Losses]) -> None:
        bad = next((losses for losses in done if not torch.isfinite(losses.total)), done[0])
        raise self.objective.explain_non_finite(bad)

