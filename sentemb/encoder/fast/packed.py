"""Rows of token ids end to end, without padding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sentemb.types import TokenColumn


@dataclass(frozen=True)
class Run:
    """Neighbouring rows of equal length: tokens ``begin`` … ``begin + rows * length``, a rectangle without padding."""

    begin: int
    rows: int
    length: int

    @property
    def end(self) -> int:
        """First token behind the run."""
        return self.begin + self.rows * self.length


@dataclass(frozen=True)
class Packed:
    """A batch as one line of tokens; rows must be sorted by length for few runs."""

    ids: Int[Tensor, " tokens"]
    positions: Int[Tensor, " tokens"]  # of every token in its row, from 0
    runs: tuple[Run, ...]
    row_starts: Int[Tensor, " rows_plus_1"]  # int32, for variable-length attention kernels
    longest: int

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return len(self.ids)

    @property
    def rows(self) -> int:
        """Texts."""
        return len(self.row_starts) - 1

    def to(self, device: torch.device) -> Packed:
        """The same on ``device``."""
        if self.ids.device == device:
            return self

        def move(values: Tensor) -> Tensor:
            # pinned pages make the copy to a GPU asynchronous
            return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)

        return replace(self, ids=move(self.ids), positions=move(self.positions), row_starts=move(self.row_starts))


def pack(column: TokenColumn) -> Packed:
    """Pack the rows of ``column`` in their order, on the CPU."""
    lengths, starts = column.lengths, column.offsets - column.offsets[0]
    changes = np.flatnonzero(np.diff(lengths)) + 1
    first = np.concatenate([[0], changes])
    counts = np.diff(np.append(first, len(lengths)))
    runs = tuple(
        Run(int(starts[row]), int(count), int(lengths[row])) for row, count in zip(first, counts, strict=True)
    )
    ids = column.flat[column.offsets[0] : column.offsets[-1]].astype(np.int64)
    positions = np.arange(len(ids)) - np.repeat(starts[:-1], lengths)

    return Packed(torch.from_numpy(ids), torch.from_numpy(positions), runs, torch.from_numpy(starts.astype(np.int32)),
                  int(lengths.max(initial=0)))


def fill_up(packed: Packed, tokens: int, rows: int) -> Packed:
    """``packed`` with rows of id 0 behind its own, until it has ``tokens`` tokens and ``rows`` rows.

    The rows that fill are as long as the longest, then empty; what is computed for the others stays the same. A shape
    that stays the same from batch to batch is what a CUDA graph needs.

    Raises:
        ValueError: so many rows cannot hold the tokens.
    """
    extra, longest = tokens - packed.tokens, packed.longest
    whole, rest = divmod(extra, longest)
    if extra < 0 or packed.rows + whole + bool(rest) > rows:
        raise ValueError(f"{packed.rows} rows with {packed.tokens} tokens do not fit {rows} rows with {tokens}")
    steps = torch.arange(1, rows - packed.rows + 1) * longest + packed.tokens
    runs = [*packed.runs]
    if whole:
        runs.append(Run(packed.tokens, whole, longest))
    if rest:
        runs.append(Run(packed.tokens + whole * longest, 1, rest))
    return Packed(
        torch.cat([packed.ids, packed.ids.new_zeros(extra)]),
        torch.cat([packed.positions, torch.arange(extra) % longest]), tuple(runs),
        torch.cat([packed.row_starts, steps.clamp_(max=tokens).to(packed.row_starts.dtype)]), longest,
    )
