"""The exact search of one segment by torch, with its vectors on a GPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.inner_products import COLUMNS, ExactSearch
from sentemb.search.vectors.faiss_vectors import Mask, VectorIndex, Vectors


def torch_device(name: str) -> str | None:
    """The torch device that ``device = name`` of an index means; None for the CPU, where FAISS searches.

    Raises:
        SearchError: neither a CPU nor a CUDA device.
        ModelError: this machine has no such device.
    """
    if name == "cpu":
        return None
    if name.partition(":")[0] != "cuda":
        raise SearchError(f'device = "{name}"; an index is searched on cpu, cuda or cuda:1 …')
    from sentemb.machine.precision import find_device

    return str(find_device(name))


class TorchVectors:
    """Vectors of rows 0 … rows - 1 on a torch device.

    Args:
        vectors: an index that can give its vectors back exactly.
        device: any device of torch.

    Raises:
        SearchError: they do not fit into the device's memory.
    """

    def __init__(self, vectors: VectorIndex, device: str) -> None:
        self.device = device
        try:
            store = torch.empty((vectors.rows, vectors.dimension), device=device)
        except torch.OutOfMemoryError:
            size = vectors.rows * vectors.dimension * 4 / 2**30
            raise SearchError(
                f'device = "{device}": {vectors.rows:,} vectors take {size:.1f} GiB, which are not free there; search '
                "on the cpu, or build an index of a smaller kind"
            ) from None
        for start in range(0, vectors.rows, COLUMNS):
            rows = np.arange(start, min(start + COLUMNS, vectors.rows))
            store[start : start + len(rows)] = torch.from_numpy(vectors.vectors_of(rows))
        self._exact = ExactSearch(store, vectors.metric)

    def search(
        self, queries: Vectors, k: int, allowed: Mask | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows (queries, k), best first; places without an allowed row have row -1. k ≤ rows."""
        return self._exact.top(queries, k, allowed)
