"""Principal axes: the few directions that keep most of many vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentemb.types import Vectors

_ROWS_AT_ONCE = 65_536


def principal_axes(vectors: Vectors, width: int, *, centred: bool) -> NDArray[np.float32]:
    """The ``width`` leading axes (d, width) of the vectors' second moment, largest first; of their covariance where
    ``centred``.

    ``vectors @ axes`` keeps inner products as well as so few dimensions can (Eckart & Young); centred, it keeps the
    variance. Sums run in float64. The largest entry of every axis is positive, so that no library decides a sign.
    """
    moment, total = np.zeros((vectors.shape[1],) * 2), np.zeros(vectors.shape[1])
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = vectors[start : start + _ROWS_AT_ONCE].astype(np.float64)
        moment += block.T @ block
        total += block.sum(axis=0)
    if centred:
        mean = total / len(vectors)
        moment -= len(vectors) * np.outer(mean, mean)
    axes = np.linalg.eigh(moment)[1][:, ::-1][:, :width]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(width)])
    result: NDArray[np.float32] = (axes * signs).astype(np.float32)
    return result
