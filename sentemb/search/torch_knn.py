"""Exact top-k by inner product with torch: tiles of float32 products on any device, or the certified bfloat16 pass of
``certified_knn`` on CPUs where that is faster."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sentemb.machine.allocation import keep_freed_memory
from sentemb.machine.rates import has_fast_bfloat16, linear

GROUPS = 16  # columns whose maximum stands for them in the first selection
QUERY_ROWS = 1024
COLUMNS = 65_536


def best_device() -> str:
    """The GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class ExactSearch:
    """Vectors made ready for many exact searches.

    Args:
        vectors: (rows, d); not copied on a CPU where they are C-contiguous float32 and may be written to.
        device: where products are computed.
    """

    def __init__(self, vectors: NDArray[np.float32], device: str = "cpu") -> None:
        from sentemb.search.certified_knn import CertifiedStore

        if device == "cpu":
            keep_freed_memory()
        self.device = device
        self.store = _tensor(vectors).to(device)
        self.certified = CertifiedStore(self.store) if device == "cpu" and has_fast_bfloat16() else None

    def top(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows (queries, k) of the k ≤ rows largest inner products, best first; equal scores by row."""
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        certified = self.certified if self.certified is not None and self.certified.pays_for(k) else None
        with torch.no_grad():
            for start in range(0, len(queries), QUERY_ROWS):
                some = _tensor(queries[start : start + QUERY_ROWS]).to(self.device)
                values, found = full_top(some, self.store, k) if certified is None else certified.top(some, k)
                scores[start : start + len(some)] = values.cpu().numpy()
                rows[start : start + len(some)] = found.cpu().numpy()
        return scores, rows


def top(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int, *, device: str = "cpu"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``ExactSearch(vectors, device).top(queries, k)``."""
    return ExactSearch(vectors, device).top(queries, k)


def _tensor(array: NDArray[np.float32]) -> Tensor:
    """The array as a tensor; copied only where torch cannot take it (read-only or strided)."""
    return torch.from_numpy(np.require(array, dtype=np.float32, requirements=["C", "W"]))


def full_top(
    queries: Float[Tensor, "n d"], store: Float[Tensor, "m d"], k: int
) -> tuple[Float[Tensor, "n k"], Tensor]:
    """Values and rows of the k ≤ m largest float32 products, best first; equal values by row."""
    values, rows = tiled_top(queries, store, k)
    return ordered(values, rows, k)


def ordered(values: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best, best first, equal scores by row: first by row, then stably by score."""
    rows, order = torch.sort(rows, dim=1)
    values = torch.gather(values, 1, order)
    values, order = torch.sort(values, dim=1, descending=True, stable=True)
    return values[:, :k], torch.gather(rows, 1, order)[:, :k]


def tiled_top(
    queries: Float[Tensor, "n d"], store: Float[Tensor, "m d"], k: int, bias: Float[Tensor, " m"] | None = None
) -> tuple[Float[Tensor, "n k"], Tensor]:
    """Values and rows of the k ≤ m largest products, column tile by column tile; best first within the result.

    ``bias`` is added to every row's products.
    """
    best: tuple[Tensor, Tensor] | None = None
    for start in range(0, len(store), COLUMNS):
        products = linear(queries, store[start : start + COLUMNS])
        if bias is not None:
            products += bias[start : start + COLUMNS]
        values, rows = _grouped_top(products, min(k, products.shape[1]))
        rows = rows + start
        if best is not None:
            values, rows = torch.cat([best[0], values], dim=1), torch.cat([best[1], rows], dim=1)
        if values.shape[1] > k or best is not None:
            values, order = torch.topk(values, min(k, values.shape[1]), dim=1)
            rows = torch.gather(rows, 1, order)
        best = values, rows
    assert best is not None  # k ≤ rows, so there is at least one
    return best


def _grouped_top(products: Float[Tensor, "n m"], k: int) -> tuple[Tensor, Tensor]:
    """``topk`` by group maxima: the k largest values lie in the k groups with the largest maxima."""
    width = products.shape[1] // GROUPS
    if width < 2 * k:
        return torch.topk(products, k, dim=1)
    whole = width * GROUPS
    maxima = products[:, :width].clone()
    for start in range(width, whole, width):
        torch.maximum(maxima, products[:, start : start + width], out=maxima)
    group = torch.topk(maxima, k, dim=1, sorted=False).indices
    members = (group[:, :, None] + torch.arange(0, whole, width, device=products.device)).flatten(1)
    if whole < products.shape[1]:
        rest = torch.arange(whole, products.shape[1], device=products.device).expand(len(products), -1)
        members = torch.cat([members, rest], dim=1)
    values, order = torch.topk(torch.gather(products, 1, members), k, dim=1)
    return values, torch.gather(members, 1, order)
