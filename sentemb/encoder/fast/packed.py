"""Rows of token ids end to end, without padding."""

from __future__ import annotations

from dataclasses import dataclass

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


def pack(column: TokenColumn, device: torch.device) -> Packed:
    """Pack the rows of ``column`` in their order."""
    lengths, starts = column.lengths, column.offsets - column.offsets[0]
    changes = np.flatnonzero(np.diff(lengths)) + 1
    first = np.concatenate([[0], changes])
    counts = np.diff(np.append(first, len(lengths)))
    runs = tuple(
        Run(int(starts[row]), int(count), int(lengths[row])) for row, count in zip(first, counts, strict=True)
    )
    ids = column.flat[column.offsets[0] : column.offsets[-1]].astype(np.int64)
    positions = np.arange(len(ids)) - np.repeat(starts[:-1], lengths)

    def move(values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        # pinned pages make the copy to a GPU asynchronous
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    return Packed(move(ids), move(positions), runs, move(starts.astype(np.int32)), int(lengths.max(initial=0)))
