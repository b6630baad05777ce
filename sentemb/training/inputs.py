"""What one optimisation step reads: token tensors of this device, ids and hashes of the whole batch.

Views are made for the whole batch on every device from a generator keyed by (seed, step) and then sliced, so the
number of devices changes nothing, and resuming needs no generator state for them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.data.padding import concatenate, pad
from sentemb.distributed import split_sizes
from sentemb.types import Companion, Examples, TokenColumn, Tokens, View, ViewContext, ViewMaker, Views, Vocabulary

# Sub-batches of similar length within one merged forward: rows never see each other in the backbone, so splitting
# changes nothing but the padding. Launch-bound devices take one.
CPU_LENGTH_GROUPS = 3


@dataclass(frozen=True)
class LengthGroup:
    """Rows of the merged views that are forwarded together; ``rows`` are their places in the merged order.

    Tokens without a place are forwarded, but count for nothing.
    """

    tokens: Tokens
    rows: Tensor


@dataclass(frozen=True)
class StepInput:
    """One step's input on one device. n rows in the whole batch, b of them here."""

    step: int
    sizes: tuple[int, ...]  # rows of every device
    local: slice  # this device's rows
    merged: tuple[str, ...]  # views whose embeddings are wanted, in the order of the merged rows
    groups: tuple[LengthGroup, ...]  # the merged views' tokens, b · len(merged) rows in all
    tokens: Mapping[str, Tokens]  # per view, where a part reads tokens or hidden states
    ids: Mapping[str, Tensor]  # view -> (n,) examples that its texts come from (a drawn text is another one's)
    text: Mapping[str, Tensor]  # view -> (n,)
    label: Tensor | None  # (n,)
    score: Tensor | None  # (n,)
    seed: int  # of the edits' generator

    def to(self, device: torch.device) -> StepInput:
        """The same on a device (asynchronous where the tensors are pinned)."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        def move_tokens(tokens: Tokens) -> Tokens:
            targets = None if tokens.targets is None else move(tokens.targets)
            return Tokens(move(tokens.input_ids), move(tokens.attention_mask), targets)

        return replace(
            self,
            groups=tuple(LengthGroup(move_tokens(group.tokens), move(group.rows)) for group in self.groups),
            tokens={name: move_tokens(tokens) for name, tokens in self.tokens.items()},
            ids={name: move(ids) for name, ids in self.ids.items()},
            text={name: move(text) for name, text in self.text.items()},
            label=None if self.label is None else move(self.label),
            score=None if self.score is None else move(self.score),
        )


@dataclass(frozen=True)
class InputMaker:
    """Turns row numbers of the data set into a ``StepInput``."""

    dataset: Examples
    maker: ViewMaker
    copies: Sequence[Callable[[Views, ViewContext], Views]]
    vocabulary: Vocabulary
    companions: Mapping[str, Companion]
    seed: int
    embedded: Callable[[Views], tuple[str, ...]]  # views that are encoded for their embedding only
    read: Callable[[Views], tuple[str, ...]]  # views whose tokens parts read, or that are encoded on their own
    length_groups: int = CPU_LENGTH_GROUPS
    chunk_size: int | None = None  # rows of a group at most
    chunk_tokens: int | None = None  # tokens of a group at most, with padding
    equal_groups: bool = False  # as many on every device: sharded weights are gathered by all devices at once

    def __call__(self, rows: NDArray[np.int64], step: int, *, rank: int = 0, devices: int = 1) -> StepInput:
        """The input of one device for the whole batch ``rows`` at ``step``."""
        context = ViewContext(
            np.random.Generator(np.random.Philox(key=[self.seed, step])), self.dataset, self.vocabulary, self.companions
        )
        examples = self.dataset.take(rows)
        views = dict(self.maker(examples, context))
        for copy in self.copies:
            views.update(copy(views, context))
        sizes = split_sizes(len(rows), devices)
        dealt = [slice(sum(sizes[:place]), sum(sizes[: place + 1])) for place in range(devices)]
        local = dealt[rank]
        mine = np.arange(local.start, local.stop, dtype=np.int64)
        merged = self.embedded(views)
        columns = [views[name].column for name in merged]
        least = 1
        if self.equal_groups and merged:
            least = max(len(self._parts(_merge(columns, part).lengths)) for part in dealt)
        return StepInput(
            step=step,
            sizes=sizes,
            local=local,
            merged=merged,
            groups=self._groups(_merge(columns, local), least) if merged else (),
            tokens={name: _tokens(views[name], mine, self.vocabulary.pad) for name in self.read(views)},
            ids={name: torch.from_numpy(view.ids) for name, view in views.items()},
            text={name: torch.from_numpy(view.column.text) for name, view in views.items()},
            label=None if examples.label is None else torch.from_numpy(examples.label),
            score=None if examples.score is None else torch.from_numpy(examples.score),
            seed=int(context.generator.integers(2**62)),
        )

    def _groups(self, column: TokenColumn, least: int) -> tuple[LengthGroup, ...]:
        """All views' rows in groups, at least ``least`` of them: what is missing is a row that counts for nothing."""
        groups = [
            LengthGroup(_pad(column.take(part), None, self.vocabulary.pad), torch.from_numpy(part))
            for part in self._parts(column.lengths)
        ]
        filler = _pad(column.take(np.arange(1)), None, self.vocabulary.pad)
        missing = [LengthGroup(filler, groups[0].rows[:0])] * (least - len(groups))
        return (*missing, *groups)

    def _parts(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Rows stably sorted by length, in some parts of equal size or in chunks within the bounds."""
        order = np.argsort(lengths, kind="stable")
        if self.chunk_size is None and self.chunk_tokens is None:
            return np.array_split(order, max(1, min(self.length_groups, len(order) // 8)))
        return np.split(order, chunk_starts(lengths[order], self.chunk_size, self.chunk_tokens)[1:])


def chunk_starts(lengths: NDArray[np.int64], size: int | None, tokens: int | None) -> list[int]:
    """Where chunks of rows sorted by length start, so that none has more than ``size`` rows or ``tokens`` tokens.

    Tokens count padding. A row longer than ``tokens`` is a chunk of its own.
    """
    starts = [0]
    # from the longest down, so that only the chunk of the shortest rows is not full
    end = len(lengths)
    while end > 0:
        rows = end if size is None else min(size, end)
        if tokens is not None:
            rows = min(rows, max(1, tokens // int(lengths[end - 1])))
        end -= rows
        if end > 0:
            starts.insert(1, end)
    return starts


def _merge(columns: Sequence[TokenColumn], rows: slice) -> TokenColumn:
    """The given rows of every column, one column after the other."""
    index = np.arange(rows.start, rows.stop, dtype=np.int64)
    return concatenate([column.take(index) for column in columns])


def _tokens(view: View, rows: NDArray[np.int64], pad: int) -> Tokens:
    targets = None
    if view.targets is not None:
        targets = TokenColumn(view.targets, view.column.offsets, view.column.text).take(rows).flat
    return _pad(view.column.take(rows), targets, pad)


def _pad(column: TokenColumn, targets: NDArray[np.int32] | None, pad_id: int) -> Tokens:
    padded = pad(column, pad_id, targets)
    return Tokens(
        torch.from_numpy(padded.input_ids),
        torch.from_numpy(padded.attention_mask),
        None if padded.targets is None else torch.from_numpy(padded.targets),
    )


def prefetch(make: Iterator[StepInput], depth: int = 2) -> Generator[StepInput, None, None]:
    """Run an iterator in a thread, ``depth`` items ahead; its exceptions surface here."""
    import queue
    import threading

    items: queue.Queue[StepInput | BaseException | None] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: StepInput | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return items.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in make:
                put(item)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="sentemb-inputs", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
