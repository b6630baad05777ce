"""What one optimisation step reads: token tensors of this device, ids and hashes of the whole batch.

Views are made for the whole batch on every device from a generator keyed by (seed, step) and then sliced, so the
number of devices changes nothing, and resuming needs no generator state for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.companions.companion import Companion
from sentemb.data.tokens import concatenate, pad
from sentemb.distributed import split_sizes
from sentemb.types import Examples, TokenColumn, Tokens, View, ViewContext, Views, Vocabulary
from sentemb.views.view import ViewCopy, ViewMaker


@dataclass(frozen=True, kw_only=True)
class ViewUse:
    """What happens to the views of a batch; made by ``Objective.use_of``."""

    together: tuple[str, ...]  # encoded in one go for their embeddings
    separate: tuple[str, ...]  # encoded one by one, because a term reads their hidden states or attentions
    embedded: tuple[str, ...]  # those of both that have an embedding; the order of the pooled rows
    tokens: tuple[str, ...]  # whose token ids parts read


@dataclass(frozen=True, kw_only=True)
class LengthGroup:
    """Texts of similar length that are encoded at once, from all views that are encoded together."""

    tokens: Tokens
    rows: Tensor  # their positions among those views' rows, one view after the other


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """One batch on one device. n rows in the whole batch, b of them here."""

    step: int
    sizes: tuple[int, ...]  # rows of every device
    local: slice  # this device's rows
    use: ViewUse
    groups: tuple[LengthGroup, ...]  # b · len(use.together) texts in all
    tokens: Mapping[str, Tokens]  # of the views in ``use.tokens``
    ids: Mapping[str, Tensor]  # view -> (n,) examples that its texts come from (a drawn text is another one's)
    text: Mapping[str, Tensor]  # view -> (n,) content hashes
    label: Tensor | None  # (n,)
    score: Tensor | None  # (n,)
    seed: int  # of the edits' generator

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


@dataclass(frozen=True, kw_only=True)
class InputMaker:
    """Turns row numbers of the data set into a ``StepInput``."""

    dataset: Examples
    maker: ViewMaker
    copies: Sequence[ViewCopy]
    vocabulary: Vocabulary
    companions: Mapping[str, Companion]
    seed: int
    use_of: Callable[[Views], ViewUse]
    length_groups: int = 1  # of similar length: rows never see each other in the backbone, so they only save padding
    chunk_size: int | None = None  # texts of a group at most
    equal_groups: bool = False  # as many on every device: sharded weights are gathered by all devices at once

    def __call__(self, rows: NDArray[np.int64], step: int, *, rank: int = 0, devices: int = 1) -> StepInput:
        """The input of one device for the whole batch ``rows`` at ``step``."""
        context = ViewContext(
            generator=np.random.Generator(np.random.Philox(key=[self.seed, step])), dataset=self.dataset,
            vocabulary=self.vocabulary, companions=self.companions,
        )
        examples = self.dataset.take(rows)
        views = dict(self.maker(examples, context))
        for copy in self.copies:
            views.update(copy(views, context))
        sizes = split_sizes(len(rows), devices)
        shares = [slice(sum(sizes[:index]), sum(sizes[: index + 1])) for index in range(devices)]
        local = shares[rank]
        own_rows = np.arange(local.start, local.stop, dtype=np.int64)
        use = self.use_of(views)
        return StepInput(
            step=step,
            sizes=sizes,
            local=local,
            use=use,
            groups=self._groups([views[name].column for name in use.together], shares, rank),
            tokens={name: _tokens(views[name], own_rows, self.vocabulary.pad) for name in use.tokens},
            ids={name: torch.from_numpy(view.ids) for name, view in views.items()},
            text={name: torch.from_numpy(view.column.text) for name, view in views.items()},
            label=None if examples.label is None else torch.from_numpy(examples.label),
            score=None if examples.score is None else torch.from_numpy(examples.score),
            seed=int(context.generator.integers(2**62)),
        )

    def _groups(self, columns: Sequence[TokenColumn], shares: Sequence[slice], rank: int) -> tuple[LengthGroup, ...]:
        if not columns:
            return ()
        column = _merge(columns, shares[rank])
        parts = self._parts(column.lengths)
        if self.equal_groups:
            most = max(len(self._parts(_merge(columns, share).lengths)) for share in shares)
            parts = _in_parts(parts, min(most, len(columns) * min(share.stop - share.start for share in shares)))
        return tuple(
            LengthGroup(tokens=pad(column.take(part), self.vocabulary.pad), rows=torch.from_numpy(part))
            for part in parts
        )

    def _parts(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Rows stably sorted by length, in a few groups of equal size or in chunks."""
        order = np.argsort(lengths, kind="stable")
        if self.chunk_size is None:
            return np.array_split(order, max(1, min(self.length_groups, len(order) // 8)))
        # only the chunk of the shortest rows is not full
        return np.split(order, range(len(order) % self.chunk_size or self.chunk_size, len(order), self.chunk_size))


def _in_parts(parts: list[NDArray[np.int64]], count: int) -> list[NDArray[np.int64]]:
    """As ``count`` parts: the largest is halved until there are as many; fewer than before where rows are too few."""
    if len(parts) > count:
        return np.array_split(np.concatenate(parts), count)
    while len(parts) < count:
        largest = max(range(len(parts)), key=lambda index: len(parts[index]))
        parts[largest : largest + 1] = np.array_split(parts[largest], 2)
    return parts


def _merge(columns: Sequence[TokenColumn], rows: slice) -> TokenColumn:
    """The given rows of every column, one column after the other."""
    index = np.arange(rows.start, rows.stop, dtype=np.int64)
    return concatenate([column.take(index) for column in columns])


def _tokens(view: View, rows: NDArray[np.int64], pad_id: int) -> Tokens:
    targets = None
    if view.targets is not None:
        targets = TokenColumn(flat=view.targets, offsets=view.column.offsets, text=view.column.text).take(rows).flat
    return pad(view.column.take(rows), pad_id, targets)
