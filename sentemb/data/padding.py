"""Ragged token ids to rectangles, and several columns to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sentemb.types import TokenColumn, Tokens

IGNORED = -100  # target at positions that ask for nothing; torch's cross-entropy leaves it out by default


def pad(column: TokenColumn, pad_id: int, targets: NDArray[np.int32] | None = None) -> Tokens:
    """Pad on the right to the longest row, at least to 1.

    Args:
        targets: flat like ``column.flat``, see ``View.targets``.
    """
    lengths = column.lengths
    width = max(int(lengths.max(initial=0)), 1)
    mask = np.arange(width) < lengths[:, None]
    # a boolean mask is filled in row-major order, which is the order of the flat ids
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    input_ids[mask] = column.flat[column.offsets[0] : column.offsets[-1]]
    padded = None
    if targets is not None:
        padded = np.full(mask.shape, IGNORED, dtype=np.int64)
        padded[mask] = targets[column.offsets[0] : column.offsets[-1]]
    return Tokens(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(mask).long(),
        targets=None if padded is None else torch.from_numpy(padded),
    )


def concatenate(columns: Sequence[TokenColumn]) -> TokenColumn:
    """All rows of the first column, then all of the second, …"""
    offsets = [np.zeros(1, dtype=np.int64)]
    total = 0
    for column in columns:
        offsets.append(column.offsets[1:] - column.offsets[0] + total)
        total = int(offsets[-1][-1])
    return TokenColumn(
        flat=np.concatenate([column.flat[column.offsets[0] : column.offsets[-1]] for column in columns]),
        offsets=np.concatenate(offsets),
        text=np.concatenate([column.text for column in columns]),
    )
