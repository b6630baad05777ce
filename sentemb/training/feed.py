"""The batches of a run, in order, as this device's inputs; made ahead in a thread."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from sentemb.companions.companion import Companion
from sentemb.data.orders import Batches
from sentemb.distributed import devices, rank
from sentemb.errors import RecipeError
from sentemb.training.inputs import InputMaker, StepInput
from sentemb.training.plan import Plan

CPU_LENGTH_GROUPS = 3  # a GPU takes all texts at once: there, launching kernels costs more than padding
_AHEAD = 2


class Feed:
    """All batches of a run.

    Raises:
        RecipeError: the data make no batch, or one that is too small for the devices.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, settings = plan, plan.settings
        self.accumulation = settings.gradient_accumulation
        self.batches = Batches(
            plan.dataset, settings.batches, batch_size=settings.batch_size, seed=settings.seed
        )
        self.steps_per_epoch = len(self.batches) // self.accumulation
        if self.steps_per_epoch == 0:
            raise RecipeError(
                f"{len(plan.dataset)} examples make no batch of {settings.batch_size} × gradient_accumulation "
                f"{self.accumulation}; lower train.batch_size or give more data"
            )
        if self.batches.smallest < devices():
            raise RecipeError(
                f"a batch of {self.batches.smallest} examples cannot be dealt to {devices()} devices; raise "
                "train.batch_size or start fewer processes"
            )
        self.total_steps = min(settings.epochs * self.steps_per_epoch, settings.max_steps or 10**12)

    def prepare(self, device: torch.device) -> InputMaker:
        """What makes inputs, when the companions are prepared."""
        plan, settings = self.plan, self.plan.settings
        self.make_input = InputMaker(
            dataset=plan.dataset,
            maker=plan.maker,
            copies=plan.copies,
            vocabulary=plan.encoder.vocabulary,
            companions=plan.objective.named_companions,
            seed=settings.seed,
            use_of=plan.objective.use_of,
            length_groups=1 if device.type == "cuda" else CPU_LENGTH_GROUPS,
            chunk_size=settings.chunk_size,
            chunk_tokens=settings.chunk_tokens,
            equal_groups=settings.shard and devices() > 1,
        )
        return self.make_input

    def steps(self, start: int) -> Generator[list[StepInput], None, None]:
        """The batches of every optimiser step from step ``start`` to the end."""
        stream = prefetch(self._inputs(start), depth=0 if self._views_follow_training() else _AHEAD)
        try:
            while batches := list(itertools.islice(stream, self.accumulation)):
                yield batches
        finally:
            stream.close()

    def _inputs(self, start: int) -> Iterator[StepInput]:
        per_epoch, end = self.steps_per_epoch * self.accumulation, self.total_steps * self.accumulation
        number = start * self.accumulation
        while number < end:
            epoch, first = divmod(number, per_epoch)
            last = min(per_epoch, end - epoch * per_epoch)
            for rows in itertools.islice(self.batches.epoch(epoch, start=first), last - first):
                yield self.make_input(rows, number, rank=rank(), devices=devices())
                number += 1

    def _views_follow_training(self) -> bool:
        """Whether views are drawn from a companion that changes after a step: then none may be made ahead of it."""
        needs = {need for part in (self.plan.maker, *self.plan.copies) for need in part.needs}
        return any(
            f"companion:{name}" in needs and type(companion).after_step is not Companion.after_step
            for name, companion in self.plan.objective.named_companions.items()
        )


def prefetch(make: Iterator[StepInput], depth: int = _AHEAD) -> Generator[StepInput, None, None]:
    """Run an iterator in a thread, ``depth`` items ahead (0: no thread); its exceptions surface here."""
    if depth == 0:
        yield from make
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="sentemb-inputs")
    try:
        ahead = deque(pool.submit(next, make, None) for _ in range(depth))
        while (item := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, make, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
