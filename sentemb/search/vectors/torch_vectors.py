"""The exact search of one segment by torch, its vectors on a GPU: tiles of products, filters and deletions as -inf."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sentemb.errors import SearchError
from sentemb.search.store.manifest import Metric
from sentemb.search.torch_knn import COLUMNS, QUERY_ROWS, tiled_top
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

    Differs from ``torch_knn.top``, which is given both sides at once, in keeping its vectors where they are searched,
    and in the filter.

    Args:
        vectors: an index that can give its vectors back exactly.
        device: any device of torch.

    Raises:
        SearchError: they do not fit into the device's memory.
    """

    def __init__(self, vectors: VectorIndex, device: str) -> None:
        self.metric: Metric = vectors.metric
        self.device = device
        try:
            self._store = torch.empty((vectors.rows, vectors.dimension), device=device)
        except torch.OutOfMemoryError:
            size = vectors.rows * vectors.dimension * 4 / 2**30
            raise SearchError(
                f'device = "{device}": {vectors.rows:,} vectors take {size:.1f} GiB, which are not free there; search '
                "on the cpu, or build an index of a smaller kind"
            ) from None
        for start in range(0, vectors.rows, COLUMNS):
            rows = np.arange(start, min(start + COLUMNS, vectors.rows))
            self._store[start : start + len(rows)] = torch.from_numpy(vectors.vectors_of(rows))
        # ‖q - v‖² = ‖q‖² - 2(q·v - ‖v‖²/2): the nearest have the largest products with this subtracted
        self._offset = -self._store.square().sum(dim=1) / 2 if self.metric == "l2" else None

    @torch.no_grad()
    def search(
        self, queries: Vectors, k: int, allowed: Mask | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows (queries, k), best first; places without an allowed row have row -1. k ≤ rows."""
        bias = self._bias(allowed)
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), QUERY_ROWS):
            some = torch.from_numpy(np.ascontiguousarray(queries[start : start + QUERY_ROWS])).to(self.device)
            values, found = tiled_top(some, self._store, k, bias)
            found = found.masked_fill(values == -torch.inf, -1)
            if self.metric == "l2":
                values, found = self._by_distance(some, values, found)
            scores[start : start + len(some)] = values.cpu().numpy()
            rows[start : start + len(some)] = found.cpu().numpy()
        return scores, rows

    def _bias(self, allowed: Mask | None) -> Float[Tensor, " rows"] | None:
        if allowed is None:
            return self._offset
        base = torch.zeros(len(self._store), device=self.device) if self._offset is None else self._offset
        return base.masked_fill(~torch.from_numpy(allowed).to(self.device), -torch.inf)

    def _by_distance(self, queries: Tensor, values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances from the differences themselves, where the products' digits cancel; nearest first."""
        for column in range(rows.shape[1]):  # one neighbour at a time: all at once would be k times the queries
            difference = queries - self._store[rows[:, column].clamp(min=0)]
            values[:, column] = difference.square().sum(dim=1).masked_fill(rows[:, column] < 0, torch.inf)
        values, order = torch.sort(values, dim=1, stable=True)
        return values, torch.gather(rows, 1, order)
