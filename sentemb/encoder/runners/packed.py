"""Rows of token ids end to end, without padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sentemb.types import TokenColumn


@dataclass(frozen=True, kw_only=True)
class Run:
    """Neighbouring rows of equal length: tokens ``begin`` … ``begin + rows * length``, a rectangle without padding."""

    begin: int
    rows: int
    length: int

    @property
    def end(self) -> int:
        """First token behind the run."""
        return self.begin + self.rows * self.length


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A batch as one line of tokens; rows must be sorted by length for few runs."""

    ids: Int[Tensor, " tokens"]
    positions: Int[Tensor, " tokens"]  # of every token in its row, from 0
    runs: tuple[Run, ...]
    longest: int


def pack(column: TokenColumn) -> Packed:
    """Pack the rows of ``column`` in their order."""
    lengths, starts = column.lengths, column.offsets - column.offsets[0]
    first = np.concatenate([[0], np.flatnonzero(np.diff(lengths)) + 1])
    counts = np.diff(np.append(first, len(lengths)))
    runs = tuple(
        Run(begin=int(starts[row]), rows=int(count), length=int(lengths[row]))
        for row, count in zip(first, counts, strict=True)
    )
    ids = column.flat[column.offsets[0] : column.offsets[-1]].astype(np.int64)
    positions = np.arange(len(ids)) - np.repeat(starts[:-1], lengths)
    return Packed(
        ids=torch.from_numpy(ids), positions=torch.from_numpy(positions), runs=runs,
        longest=int(lengths.max(initial=0)),
    )
