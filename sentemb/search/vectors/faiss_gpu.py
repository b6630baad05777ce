"""Inverted lists on a GPU, where the installed faiss has GPU support (faiss-gpu, faiss-gpu-cuvs)."""

from __future__ import annotations

from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from sentemb.search.vectors.faiss_vectors import VectorIndex, Vectors

faiss: Any = _faiss  # its own type stubs know half of its classes
MOST = 2_048  # neighbours and probes of a search on a GPU: a limit of FAISS


class GpuLists:
    """A copy of an inverted-file index on a GPU, for searches without a filter.

    FAISS's GPU indexes take no id selector, so filtered searches and those of indexes with deleted rows stay with the
    index on the CPU.
    """

    def __init__(self, raw: Any, resources: Any) -> None:
        self._raw = raw
        self._resources = resources  # must outlive the index

    @classmethod
    def of(cls, index: VectorIndex, device: str) -> GpuLists | None:
        """The copy on ``cuda`` or ``cuda:N``; None where this faiss has no GPU support, or not for this kind."""
        if not hasattr(faiss, "StandardGpuResources") or not isinstance(index.raw, faiss.IndexIVF):
            return None
        resources = faiss.StandardGpuResources()
        try:
            return cls(faiss.index_cpu_to_gpu(resources, int(device.partition(":")[2] or 0), index.raw), resources)
        except RuntimeError:  # RaBitQ and other kinds that FAISS has on the CPU only
            return None

    def search(
        self, queries: Vectors, k: int, nprobe: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Scores and rows (queries, k), best first; None where FAISS's limits for GPUs are passed."""
        if max(k, nprobe) > MOST:
            return None
        scores, rows = self._raw.search(queries, k, params=faiss.SearchParametersIVF(nprobe=nprobe))
        return scores, rows
