"""What a run's steps read, made ahead in a thread: token tensors of this device, ids and hashes of the whole batch.

Views are made for the whole batch on every device from a generator keyed by (seed, step) and then sliced, so the
number of devices changes nothing, and resuming needs no generator state for them.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.companions.companion import Companion
from sentemb.data.orders import Batches
from sentemb.data.templates import empty_rows
from sentemb.data.tokens import concatenate, pad
from sentemb.distributed import devices, rank, split_sizes
from sentemb.encoder.encode import require_mask_tokens
from sentemb.errors import RecipeError
from sentemb.types import Examples, Frame, TokenColumn, Tokens, View, ViewContext

if TYPE_CHECKING:
    from sentemb.training.plan import Plan

CPU_LENGTH_GROUPS = 3
_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class ViewUse:
    """What happens to the views of a batch; made by ``Objective.use_of``."""

    together: tuple[str, ...]  # encoded in one go for their embeddings
    separate: tuple[str, ...]  # encoded one by one, because a term reads their hidden states or attentions
    embedded: tuple[str, ...]  # those of both that have an embedding; the order of the pooled rows
    tokens: tuple[str, ...]  # whose token ids parts read


@dataclass(frozen=True, kw_only=True)
class LengthGroup:
    """Texts of similar length and one dropout rate that are encoded at once, from all views encoded together."""

    tokens: Tokens
    # their positions among the rows of all views that are encoded together, one view (of several fields: one field)
    # after the other; then come the empty templates of the batch
    rows: Tensor
    dropout: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """One batch on one device. n rows in the whole batch, b of them here."""

    step: int
    sizes: tuple[int, ...]  # rows of every device
    local: slice  # this device's rows
    use: ViewUse
    groups: tuple[LengthGroup, ...]  # b texts for each field of each view
    shares: tuple[Tensor, ...]  # (fields, b) of every view in ``use.together``: of its fields in their mean
    unit_fields: bool  # fields have unit length before their mean, as the model's vectors have
    tokens: Mapping[str, Tokens]  # of the views in ``use.tokens``
    ids: Mapping[str, Tensor]  # view -> (n,) examples that its texts come from (a drawn text is another one's)
    text: Mapping[str, Tensor]  # view -> (n,) content hashes
    label: Tensor | None  # (n,)
    score: Tensor | None  # (n,)
    margin: Tensor | None  # (n,)
    weight: Tensor | None  # (n,)
    levels: Tensor | None  # (n, l)
    negative_scores: Mapping[str, Tensor]  # view -> (n,)
    grades: Mapping[str, Tensor]  # view -> (n,)
    seed: int  # of the edits' generator
    dropout: Mapping[str, float | None]  # rate of the views in ``use.separate``
    source: str = ""  # of a mixture that the batch comes from
    # for every row of the views that are encoded together, which of the batch's empty templates is subtracted from it;
    # their number: none is. None: none from any row
    minus: Tensor | None = None

    def in_chunks(self, size: int) -> StepInput:
        """The same with groups of at most ``size`` texts."""
        groups = [
            LengthGroup(tokens=Tokens(input_ids=ids, attention_mask=mask), rows=rows, dropout=group.dropout)
            for group in self.groups
            for ids, mask, rows in zip(
                group.tokens.input_ids.split(size), group.tokens.attention_mask.split(size), group.rows.split(size),
                strict=True,
            )
        ]
        return replace(self, groups=tuple(groups))

    def to(self, device: torch.device) -> StepInput:
        """The same on a device (asynchronous where the tensors are pinned)."""
        moved: StepInput = _moved(self, device)
        return moved


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: _moved(entry, device) for name, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_moved(entry, device) for entry in value)
    if isinstance(value, (StepInput, LengthGroup, Tokens)):
        return replace(value, **{item.name: _moved(getattr(value, item.name), device) for item in fields(value)})
    return value


class Feed:
    """The batches of a run, in order, as this device's inputs; where their order needs a companion, after ``prepare``.

    Data that make too few batches or too small ones are refused.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, settings = plan, plan.settings
        self.accumulation, self.chunk_size = settings.gradient_accumulation, settings.chunk_size
        companions = plan.objective.named_companions.items()
        needs = settings.batches.needs
        self._grouping = next((companion for name, companion in companions if f"companion:{name}" in needs), None)
        if self._grouping is None:
            self._deal(plan.dataset)

    def prepare(self) -> None:
        """Deal the batches, where their order needs a companion: now it is prepared."""
        if self._grouping is not None:
            self._deal(replace(self.plan.dataset, label=self._grouping.groups()))

    def _deal(self, dataset: Examples) -> None:
        plan, settings = self.plan, self.plan.settings
        self.batches = Batches(dataset, settings.batches, batch_size=settings.batch_size, seed=settings.seed)
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
            for rows in itertools.islice(self.batches.epoch(epoch, start=first), min(per_epoch - first, end - number)):
                yield self.make_input(rows, number, rank=rank(), devices=devices())
                number += 1

    def _views_follow_training(self) -> bool:
        """Whether views are drawn from a companion that changes after a step: then none may be made ahead of it."""
        needs = {need for part in (self.plan.maker, *self.plan.copies) for need in part.needs}
        return any(
            f"companion:{name}" in needs and type(companion).after_step is not Companion.after_step
            for name, companion in self.plan.objective.named_companions.items()
        )

    def make_input(self, rows: NDArray[np.int64], step: int, *, rank: int = 0, devices: int = 1) -> StepInput:
        """The input of one device for the batch of these rows of the data, at ``step``."""
        plan, vocabulary = self.plan, self.plan.encoder.vocabulary
        source, examples = plan.dataset.batch(rows)
        context = ViewContext(
            generator=np.random.Generator(np.random.Philox(key=[plan.settings.seed, step])), dataset=plan.dataset,
            vocabulary=vocabulary, companions=plan.objective.named_companions, source=source,
        )
        views = dict(plan.maker(examples, context))
        for copy in plan.copies:
            if copy.is_for(source):
                views.update(copy(views, context))
        sizes = split_sizes(len(rows), devices)
        local = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        own_rows = np.arange(local.start, local.stop, dtype=np.int64)
        use = plan.objective.active(source).use_of(views)
        module = self.plan.encoder.module
        if module.pooling.reads_mask_token:
            for part in (part for name in use.embedded for part in views[name].parts):
                require_mask_tokens(part.column, module.mask_token)
        groups, minus = self._groups([part for name in use.together for part in views[name].parts], sizes, own_rows)
        return StepInput(
            step=step, sizes=sizes, local=local, use=use, groups=groups, source=source, minus=minus,
            shares=tuple(torch.from_numpy(views[name].shares_in(own_rows)) for name in use.together),
            unit_fields=plan.encoder.is_normalised,
            tokens={name: _tokens(views[name], own_rows, vocabulary.pad) for name in use.tokens},
            ids={name: torch.from_numpy(view.ids) for name, view in views.items()},
            text={name: torch.from_numpy(view.column.text) for name, view in views.items()},
            label=_tensor(examples.label), levels=_tensor(examples.levels),
            score=_tensor(examples.score), margin=_tensor(examples.margin), weight=_tensor(examples.weight),
            negative_scores={name: torch.from_numpy(score) for name, score in examples.negative_scores.items()},
            grades={name: torch.from_numpy(grade) for name, grade in examples.grades.items()},
            seed=int(context.generator.integers(2**62)),
            dropout={name: views[name].dropout for name in use.separate},
        )

    def _groups(
        self, views: Sequence[View], sizes: Sequence[int], rows: NDArray[np.int64]
    ) -> tuple[tuple[LengthGroup, ...], Tensor | None]:
        """This device's rows of the views by length, in a few groups or in chunks; they only save padding and memory.
        Then the templates whose vectors are subtracted, and from which rows.

        Views of different dropout rates stand in different groups. There are as many groups on every device, because
        sharded weights are gathered by all devices at once.
        """
        groups: list[LengthGroup] = []
        for rate in dict.fromkeys(view.dropout for view in views):
            chosen = [number for number, view in enumerate(views) if view.dropout == rate]
            column = concatenate([views[number].column.take(rows) for number in chosen])
            position = np.concatenate([number * len(rows) + np.arange(len(rows)) for number in chosen])
            count = self._group_count(len(chosen) * min(sizes), len(chosen) * max(sizes))
            groups += [
                LengthGroup(
                    tokens=pad(column.take(part), self.plan.encoder.vocabulary.pad),
                    rows=torch.from_numpy(position[part]), dropout=rate,
                )
                for part in np.array_split(np.argsort(column.lengths, kind="stable"), count)
            ]
        empty, minus = self._empty_templates(views, rows)
        return (*groups, *empty), minus

    def _empty_templates(
        self, views: Sequence[View], rows: NDArray[np.int64]
    ) -> tuple[list[LengthGroup], Tensor | None]:
        """One row for each template and length of text that occur in the batch, the same ones on every device."""
        number: dict[tuple[Frame, int], int] = {}
        minus = []
        for view in views:
            lengths = [] if view.minus is None else view.minus.room_in(view.column).tolist()
            minus.append([number.setdefault((view.minus, length), len(number)) for length in lengths if view.minus])
        if not number:
            return [], None
        padded = empty_rows([frame for frame, _ in number], np.array([length for _, length in number]),
                            self.plan.encoder.vocabulary)
        first = torch.arange(len(number)) + len(views) * len(rows)
        size = self.chunk_size or len(number)
        groups = [
            LengthGroup(tokens=Tokens(input_ids=ids, attention_mask=mask), rows=positions)
            for ids, mask, positions in zip(
                padded.input_ids.split(size), padded.attention_mask.split(size), first.split(size), strict=True
            )
        ]
        own = [np.array(places)[rows] if places else np.full(len(rows), len(number)) for places in minus]
        return groups, torch.from_numpy(np.concatenate(own))

    def _group_count(self, fewest: int, most: int) -> int:
        """Groups for the texts of which a device has ``fewest`` to ``most``."""
        if self.chunk_size is not None:
            return min(-(-most // self.chunk_size), fewest)
        # a GPU takes all texts at once: there, launching kernels costs more than padding
        return 1 if torch.cuda.is_available() else max(1, min(CPU_LENGTH_GROUPS, fewest // 8))


def _tensor(values: NDArray[Any] | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(values)


def _tokens(view: View, rows: NDArray[np.int64], pad_id: int) -> Tokens:
    targets = None
    if view.targets is not None:
        targets = TokenColumn(flat=view.targets, offsets=view.column.offsets, text=view.column.text).take(rows).flat
    return pad(view.column.take(rows), pad_id, targets)


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
