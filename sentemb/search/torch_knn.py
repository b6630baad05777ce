"""Exact top-k by inner product with torch: tiles on a GPU, and a certified half-precision pass on CPUs that have one.

On a CPU where bfloat16 is fast the product of all pairs is computed from bfloat16 copies, a few more candidates
than asked are kept, and those are compared again in float32. Each row is then checked: rounding changes an inner
product by at most ``‖q - q̃‖·‖v‖ + ‖q̃‖·‖v - ṽ‖`` (Cauchy-Schwarz) plus the rounding of the result, so if the best
candidate left out is worse than the k-th kept one by more than that, nothing can have been missed. Rows that cannot be
certified are computed again in float32. The result is the float32 one either way.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sentemb.maths.product import has_fast_bfloat16, linear

GROUPS = 16  # columns whose maximum stands for them in the first selection
QUERY_ROWS = 512
COLUMNS = 65_536
BF16_ROUNDING = 2.0**-8  # of a stored result, relative; round to nearest would be half of it
FLOAT32_SLACK = 1e-5  # for sums taken in another order, relative to the longest vectors


def best_device() -> str:
    """The GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def top(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int, *, device: str = "cpu"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and rows (queries, k) of the k ≤ rows largest inner products, best first; equal scores by row."""
    store = _tensor(vectors).to(device)
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    is_half = device == "cpu" and has_fast_bfloat16() and len(vectors) > 4 * (2 * k + 32)
    half = _Half(store) if is_half else None
    with torch.no_grad():
        for start in range(0, len(queries), QUERY_ROWS):
            some = _tensor(queries[start : start + QUERY_ROWS]).to(device)
            values, found = _full_top(some, store, k) if half is None else half.top(some, k)
            scores[start : start + len(some)] = values.cpu().numpy()
            rows[start : start + len(some)] = found.cpu().numpy()
    return scores, rows


def _tensor(array: NDArray[np.float32]) -> Tensor:
    """The array as a tensor; copied only where torch cannot take it (read-only or strided)."""
    return torch.from_numpy(np.require(array, dtype=np.float32, requirements=["C", "W"]))


class _Half:
    """The bfloat16 copy of the vectors with its rounding errors."""

    def __init__(self, store: Float[Tensor, "m d"]) -> None:
        self.store = store
        self.half = store.bfloat16()
        self.error = float(torch.linalg.vector_norm(store - self.half.float(), dim=1).max())
        self.norm = float(torch.linalg.vector_norm(store, dim=1).max())

    def top(self, queries: Float[Tensor, "n d"], k: int) -> tuple[Tensor, Tensor]:
        kept = 2 * k + 32
        rounded = queries.bfloat16()
        approximate, rows = tiled_top(rounded, self.half, kept)
        exact = torch.bmm(self.store[rows], queries[:, :, None])[:, :, 0]
        values, found = _ordered(exact, rows, k)
        lengths = torch.linalg.vector_norm(rounded.float(), dim=1)
        off = torch.linalg.vector_norm(queries - rounded.float(), dim=1) * self.norm + lengths * self.error
        worst = approximate[:, -1].float()
        bound = worst + off + worst.abs() * BF16_ROUNDING + FLOAT32_SLACK * self.norm * lengths
        again = torch.nonzero(values[:, -1] <= bound)[:, 0]
        if len(again):
            values[again], found[again] = _full_top(queries[again], self.store, k)
        return values, found


def _full_top(queries: Tensor, store: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, rows = tiled_top(queries, store, k)
    return _ordered(values, rows, k)


def _ordered(values: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
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
