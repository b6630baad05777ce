"""Exact top-k by inner product on CPUs that multiply bfloat16 faster than float32.

All products are taken of bfloat16 copies; those that may belong to the k largest are taken again in float32. What may
belong is known: rounding changes an inner product by at most ``‖q - q̃‖·‖v‖ + ‖q̃‖·‖v - ṽ‖`` (Cauchy-Schwarz), plus
the rounding of the result. The maxima of disjoint groups of columns are products of different columns, so the k-th
largest maximum, less that much, is a value that at least k products reach; a product that stays below it by as much
again is none of the k largest. The result is float32's.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sentemb.search import torch_knn

GROUP = 16  # columns of one maximum
COARSER = 4  # groups of a coarser one
TILE = 2048  # columns multiplied at once: with 1,024 queries 4 MiB of results, still in the cache for their maxima
ROUNDING = 2.0**-8  # of a stored product, relative; round to nearest would be half of it
SLACK = 1e-5  # for sums taken in another order, relative to the longest vectors
PAIRS = 512  # products that are taken again at once: 0.75 MiB of vectors of 384 entries
_NEVER = torch.iinfo(torch.int64).max


class CertifiedStore:
    """The vectors with their bfloat16 copy and its largest rounding error."""

    def __init__(self, store: Float[Tensor, "m d"]) -> None:
        self.store = store
        self.half = store.bfloat16()
        self._error = self._norm = 0.0
        for start in range(0, len(store), TILE):
            exact, rounded = store[start : start + TILE], self.half[start : start + TILE].float()
            self._error = max(self._error, float(torch.linalg.vector_norm(exact - rounded, dim=1).max()))
            self._norm = max(self._norm, float(torch.linalg.vector_norm(exact, dim=1).max()))
        self._products = store.new_empty(0, dtype=torch.bfloat16)  # kept from block to block of queries

    def pays_for(self, k: int) -> bool:
        """Whether there are enough vectors, in one block too, that few of them are looked at twice."""
        return 4 * GROUP * k < min(len(self.store), torch_knn.COLUMNS + 1)

    def top(
        self, queries: Float[Tensor, "n d"], k: int
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Values and rows of the k largest products, best first; equal values by row."""
        rounded = queries.bfloat16()
        lengths = torch.linalg.vector_norm(rounded.float(), dim=1)
        off = torch.linalg.vector_norm(queries - rounded.float(), dim=1) * self._norm + lengths * self._error
        off += SLACK * self._norm * lengths
        values, rows = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self.store), torch_knn.COLUMNS):
            products, maxima = self._multiply(rounded, start)
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
            some_values, some_rows = self._again(queries, products, maxima, least, start, k)
            values, rows = torch_knn.ordered(torch.cat([values, some_values], 1), torch.cat([rows, some_rows], 1), k)
        return values, rows

    def _multiply(self, queries: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Products (tiles, n, TILE) of a block of columns, -inf behind the last column, and maxima (n, groups)."""
        block = self.half[start : start + torch_knn.COLUMNS]
        tiles, n = -(-len(block) // TILE), len(queries)
        if self._products.numel() < tiles * n * TILE:
            self._products = self.half.new_empty(tiles * n * TILE)
        products = self._products[: tiles * n * TILE].view(tiles, n, TILE)
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
        found = by_group[tile * len(queries) + query, :, first]
        hit, place = (found >= least[query, None]).nonzero(as_tuple=True)
        query, row = query[hit], tile[hit] * TILE + first[hit] + member[place] + start
        values = self._exact(queries, query, row)
        counts = torch.bincount(query, minlength=len(queries))
        slot = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
        width = max(int(counts.max()), k if bool(crowded.any()) else 0)
        again = queries.new_full((len(queries), width), -torch.inf)
        rows = torch.full((len(queries), width), _NEVER)
        again[query, slot], rows[query, slot] = values, row
        if bool(crowded.any()):
            block = self.store[start : start + torch_knn.COLUMNS]
            kept = min(k, len(block))
            exact, places = torch_knn.full_top(queries[crowded], block, kept)
            again[crowded, :kept], rows[crowded, :kept] = exact, places + start
        return again, rows

    def _exact(self, queries: Tensor, query: Tensor, row: Tensor) -> Float[Tensor, " pairs"]:
        values = queries.new_empty(len(query))
        for start in range(0, len(query), PAIRS):
            part = slice(start, start + PAIRS)
            vectors = self.store.index_select(0, row[part])
            torch.sum(vectors.mul_(queries.index_select(0, query[part])), 1, out=values[part])
        return values
