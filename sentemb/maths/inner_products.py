"""Exact top-k of one set of vectors by torch: tiles of float32 products on any device, and a faster pass for CPUs that
multiply bfloat16 faster than float32, with float32's result.

The faster pass takes all products of bfloat16 copies; those that may belong to the k largest are taken again in
float32. Rounding changes an inner product by at most ``‖q - q̃‖·‖v‖ + ‖q̃‖·‖v - ṽ‖`` (Cauchy-Schwarz), plus the rounding
of the result. The maxima of disjoint groups of columns are products of different columns, so at least k products reach
the k-th largest maximum less that much; a product that stays below it by as much again is none of the k largest.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sentemb.errors import NumericError
from sentemb.machine.rates import has_fast_bfloat16, linear
from sentemb.machine.resources import keep_freed_memory
from sentemb.maths.neighbours import Metric

QUERY_ROWS = 1024
COLUMNS = 65_536  # vectors multiplied before the best are chosen
GROUP = 16  # columns whose maximum stands for them in the first selection
COARSER = 4  # groups of a coarser one
TILE = 2048  # bfloat16 columns multiplied at once: with 1,024 queries 4 MiB of results, still in the cache for maxima
ROUNDING = 2.0**-8  # of a stored product, relative; round to nearest would be half of it
SLACK = 1e-5  # for sums taken in another order, relative to the longest vectors
PAIRS = 512  # products that are taken again at once: 0.75 MiB of vectors of 384 entries
FEW_QUERIES = 32  # below, copying the vectors costs more than it saves
_NO_ROW = torch.iinfo(torch.int64).max


class ExactSearch:
    """Vectors (rows, d), on the device that searches, made ready for many exact searches; ``l2`` is for squared
    distances, ``cosine`` expects vectors of unit length."""

    def __init__(self, store: Float[Tensor, "m d"], metric: Metric = "dot") -> None:
        self.store, self.metric = store, metric
        # ‖q - v‖² = ‖q‖² - 2(q·v - ‖v‖²/2): the nearest have the largest products with this subtracted
        self._offset = -store.square().sum(dim=1) / 2 if metric == "l2" else None
        if store.device.type == "cpu":
            keep_freed_memory()

    @classmethod
    def of(cls, vectors: NDArray[np.float32], device: str = "cpu", metric: Metric = "dot") -> ExactSearch:
        """From an array, which is not copied on a CPU where it is C-contiguous float32 and may be written to."""
        return cls(_tensor("vectors", vectors).to(device), metric)

    @torch.no_grad()
    def top(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows (queries, k) of the k ≤ rows best of the ``allowed`` rows, best first; equal scores by row.
        Places without one have row -1."""
        bias, tensor = self._offset, _tensor("queries", queries)
        if allowed is not None:
            base = self.store.new_zeros(len(self.store)) if bias is None else bias
            bias = base.masked_fill(~torch.from_numpy(allowed).to(self.store.device), -torch.inf)
        # decided by this call alone, so that an earlier one changes nothing
        is_worth_it = len(queries) >= FEW_QUERIES and 4 * GROUP * k < min(len(self.store), COLUMNS + 1)
        if is_worth_it and bias is None and self.store.device.type == "cpu" and has_fast_bfloat16():
            best, neighbours = self._certified.top(tensor, k)
            return best.numpy(), neighbours.numpy()
        scores, rows = torch.empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64)
        for start in range(0, len(queries), QUERY_ROWS):
            part = slice(start, start + QUERY_ROWS)
            block = tensor[part].to(self.store.device)
            values, neighbours = full_top(block, self.store, k, bias)
            if allowed is not None:
                neighbours = neighbours.masked_fill(values == -torch.inf, -1)
            if self.metric == "l2":
                values, neighbours = self._by_distance(block, values, neighbours)
            scores[part], rows[part] = values, neighbours
        return scores.numpy(), rows.numpy()

    @cached_property
    def _certified(self) -> CertifiedProducts:
        return CertifiedProducts(self.store)

    def _by_distance(self, queries: Tensor, values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances from the differences themselves, where the products' digits cancel; nearest first."""
        for column in range(rows.shape[1]):  # one neighbour at a time: all at once would be k times the queries
            difference = queries - self.store[rows[:, column].clamp(min=0)]
            values[:, column] = difference.square().sum(dim=1).masked_fill(rows[:, column] < 0, torch.inf)
        values, order = torch.sort(values, dim=1, stable=True)
        return values, torch.gather(rows, 1, order)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at unit length; a zero row stays zero."""
    normalised: NDArray[np.float32] = F.normalize(_tensor("vectors", vectors), dim=1).numpy()
    return normalised


def _tensor(name: str, array: NDArray[np.float32]) -> Float[Tensor, "rows d"]:
    """The array; copied only where torch cannot take it (read-only or strided)."""
    array = np.require(array, dtype=np.float32, requirements=["C", "W"])
    # one sum instead of a mask as large as the matrix; a cancelling inf - inf is NaN, so it is seen too
    if not np.isfinite(array.sum(dtype=np.float64)):
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise NumericError(f"{name}: row {row} holds NaN or infinity")
    return torch.from_numpy(array)


def full_top(
    queries: Float[Tensor, "n d"], store: Float[Tensor, "m d"], k: int, bias: Float[Tensor, " m"] | None = None
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Values and rows of the k ≤ m largest float32 products, plus a bias, best first; equal values by row."""
    values, rows = queries.new_empty(len(queries), 0), queries.new_empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(store), COLUMNS):
        products = linear(queries, store[start : start + COLUMNS])
        if bias is not None:
            products += bias[start : start + COLUMNS]
        tile_values, tile_rows = _grouped_top(products, min(k, products.shape[1]))
        values, rows = torch.cat([values, tile_values], dim=1), torch.cat([rows, tile_rows + start], dim=1)
        if values.shape[1] > k:
            values, order = torch.topk(values, k, dim=1)
            rows = torch.gather(rows, 1, order)
    return ordered(values, rows, k)


def ordered(values: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best, best first, equal scores by row: first by row, then stably by score."""
    rows, order = torch.sort(rows, dim=1)
    values = torch.gather(values, 1, order)
    values, order = torch.sort(values, dim=1, descending=True, stable=True)
    return values[:, :k], torch.gather(rows, 1, order)[:, :k]


def _grouped_top(products: Float[Tensor, "n m"], k: int) -> tuple[Tensor, Tensor]:
    """``topk`` by group maxima: the k largest values lie in the k groups with the largest maxima."""
    width = products.shape[1] // GROUP
    if width < 2 * k:
        return torch.topk(products, k, dim=1)
    grouped = width * GROUP
    maxima = products[:, :width].clone()
    for start in range(width, grouped, width):
        torch.maximum(maxima, products[:, start : start + width], out=maxima)
    group = torch.topk(maxima, k, dim=1, sorted=False).indices
    members = (group[:, :, None] + torch.arange(0, grouped, width, device=products.device)).flatten(1)
    if grouped < products.shape[1]:
        ungrouped = torch.arange(grouped, products.shape[1], device=products.device).expand(len(products), -1)
        members = torch.cat([members, ungrouped], dim=1)
    values, order = torch.topk(torch.gather(products, 1, members), k, dim=1)
    return values, torch.gather(members, 1, order)


class CertifiedProducts:
    """The vectors with their bfloat16 copy and its largest rounding error."""

    def __init__(self, store: Float[Tensor, "m d"]) -> None:
        self.store = store
        self.half = store.bfloat16()
        self._error = self._norm = 0.0
        for exact, rounded in zip(store.split(TILE), self.half.split(TILE), strict=True):
            self._error = max(self._error, float(torch.linalg.vector_norm(exact - rounded.float(), dim=1).max()))
            self._norm = max(self._norm, float(torch.linalg.vector_norm(exact, dim=1).max()))

    def top(self, queries: Float[Tensor, "n d"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Values and rows of the k largest products, best first; equal values by row."""
        tiles = -(-min(len(self.store), COLUMNS) // TILE)
        room = self.half.new_empty(tiles * TILE * min(len(queries), QUERY_ROWS))  # for the products of a block
        values, rows = zip(*(self._top(block, k, room) for block in queries.split(QUERY_ROWS)), strict=True)
        return torch.cat(values), torch.cat(rows)

    def _top(self, queries: Tensor, k: int, room: Tensor) -> tuple[Tensor, Tensor]:
        rounded = queries.bfloat16()
        lengths = torch.linalg.vector_norm(rounded.float(), dim=1)
        off = torch.linalg.vector_norm(queries - rounded.float(), dim=1) * self._norm + lengths * self._error
        off += SLACK * self._norm * lengths
        values, rows = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self.store), COLUMNS):
            products, maxima = self._multiply(rounded, start, room)
            reached = queries.new_full((len(queries),), -torch.inf)
            if maxima.shape[1] >= k:
                coarse = maxima.view(len(queries), COARSER, -1).amax(1)
                few = coarse if coarse.shape[1] >= 8 * k else maxima  # nearly as tight, and sooner ordered
                kth = torch.topk(few, k, dim=1, sorted=False).values.amin(1).float()
                reached = kth - kth.abs() * ROUNDING - off
            if values.shape[1] == k:
                reached = torch.maximum(reached, values[:, -1])
            least = reached - off
            least -= 1.01 * ROUNDING * least.abs()  # what the least product may have been rounded to
            least.clamp_(min=torch.finfo(torch.bfloat16).min)  # above what stands behind the last column
            block_values, block_rows = self._again(queries, products, maxima, least, start, k)
            values, rows = ordered(torch.cat([values, block_values], 1), torch.cat([rows, block_rows], 1), k)
        return values, rows

    def _multiply(self, queries: Tensor, start: int, room: Tensor) -> tuple[Tensor, Tensor]:
        """Products (tiles, n, TILE) of a block of columns, -inf behind the last column, and maxima (n, groups)."""
        block = self.half[start : start + COLUMNS]
        tiles, n = -(-len(block) // TILE), len(queries)
        products = room[: tiles * n * TILE].view(tiles, n, TILE)
        maxima = self.half.new_empty(n, tiles, TILE // GROUP)
        for tile, vectors in enumerate(block.split(TILE)):
            if len(vectors) == TILE:
                torch.mm(queries, vectors.t(), out=products[tile])
            else:
                products[tile, :, : len(vectors)] = torch.mm(queries, vectors.t())
                products[tile, :, len(vectors) :] = -torch.inf
            maxima[:, tile] = products[tile].view(n, GROUP, -1).amax(1)
        return products, maxima.flatten(1)

    def _again(
        self, queries: Tensor, products: Tensor, maxima: Tensor, least: Tensor, start: int, k: int
    ) -> tuple[Float[Tensor, "n c"], Int[Tensor, "n c"]]:
        """Float32 values and rows of the block's products from ``least`` on; -inf and no row behind a query's last."""
        is_hit: Bool[Tensor, "n groups"] = maxima >= least[:, None]
        crowded = is_hit.sum(1) > 4 * k + 256  # bfloat16 cannot tell this query's neighbours apart
        is_hit[crowded] = False
        query, group = is_hit.nonzero(as_tuple=True)
        tile, first = group // (TILE // GROUP), group % (TILE // GROUP)
        member = torch.arange(0, TILE, TILE // GROUP)
        by_group = products.view(-1, GROUP, TILE // GROUP)
        candidates = by_group[tile * len(queries) + query, :, first]
        hit, column = (candidates >= least[query, None]).nonzero(as_tuple=True)
        query, row = query[hit], tile[hit] * TILE + first[hit] + member[column] + start
        counts = torch.bincount(query, minlength=len(queries))
        slot = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
        width = max(int(counts.max()), k if bool(crowded.any()) else 0)
        values = queries.new_full((len(queries), width), -torch.inf)
        rows = torch.full((len(queries), width), _NO_ROW)
        values[query, slot], rows[query, slot] = self._exact(queries, query, row), row
        if bool(crowded.any()):
            block = self.store[start : start + COLUMNS]
            count = min(k, len(block))
            exact, exact_rows = full_top(queries[crowded], block, count)
            values[crowded, :count], rows[crowded, :count] = exact, exact_rows + start
        return values, rows

    def _exact(self, queries: Tensor, query: Tensor, row: Tensor) -> Float[Tensor, " pairs"]:
        values = queries.new_empty(len(query))
        for out, rows, numbers in zip(values.split(PAIRS), row.split(PAIRS), query.split(PAIRS), strict=True):
            torch.sum(self.store.index_select(0, rows).mul_(queries.index_select(0, numbers)), 1, out=out)
        return values
