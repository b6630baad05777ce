"""Exact vectors on a GPU, where torch searches them."""

from __future__ import annotations

import numpy as np
import torch

from sentemb.errors import SearchError
from sentemb.maths.inner_products import COLUMNS, ExactSearch
from sentemb.search.vectors.kind import VectorIndex


def torch_device(name: str) -> str:
    """The torch device that ``device = name`` of an index means.

    Raises:
        SearchError: no CUDA device.
        ModelError: this machine has no such device.
    """
    if name.partition(":")[0] != "cuda":
        raise SearchError(f'device = "{name}"; an index is searched on cpu, cuda or cuda:1 …')
    from sentemb.machine.precision import find_device

    return str(find_device(name))


def on_device(vectors: VectorIndex, device: str) -> ExactSearch:
    """The vectors of an exact index, copied to a device.

    Raises:
        SearchError: they do not fit into its memory.
    """
    try:
        store = torch.empty((vectors.rows, vectors.dimension), device=device)
    except torch.OutOfMemoryError:
        size = vectors.rows * vectors.dimension * 4 / 2**30
        raise SearchError(
            f'device = "{device}": {vectors.rows:,} vectors take {size:.1f} GiB, which are not free there; search on '
            "the cpu, or build an index of a smaller kind"
        ) from None
    for start in range(0, vectors.rows, COLUMNS):
        rows = np.arange(start, min(start + COLUMNS, vectors.rows))
        store[start : start + len(rows)] = torch.from_numpy(vectors.reconstruct(rows))
    return ExactSearch(store, "l2" if vectors.metric == "l2" else "dot")
