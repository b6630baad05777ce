"""FAISS behind the interface of kinds: float or binary, flat, graph or inverted lists."""

from __future__ import annotations

import math
import re
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric, worst
from sentemb.search.vectors.faiss_objects import copy_codes, create_raw, faiss, inner_graph, inner_ivf, read_raw, reason
from sentemb.search.vectors.kind import Knob, Mask, Rows, Scores, VectorIndex, Vectors, Write, search_wider

RARE = 0.1  # a graph search meets few allowed rows when they are rarer; a scan of them is exact and costs less
BATCH = 32  # queries from which one product of all of them is faster than FAISS's scan
IO_BLOCK = 1 << 20


class FaissIndex(VectorIndex):
    """An index that FAISS makes from a factory string.

    A binary factory (``B…``) keeps the signs of the values; scores are then the cosine that the share of differing
    signs suggests, cos(π · differing / d) (Charikar 2002, STOC, eq. 3), or for l2 the squared distance of the signs,
    4 · differing.
    """

    string: str
    build_effort: int | None = None  # a graph's efConstruction
    raw: Any

    def __init__(self) -> None:
        self._lock = Lock()

    def factory(self, dimension: int, rows: int) -> str:
        """FAISS's factory string for about ``rows`` vectors."""
        return self.string

    def create(self, *, dimension: int, metric: Metric, rows: int) -> None:
        self._factory = self.factory(dimension, rows)
        self._take(create_raw(self._factory, dimension, metric), metric)
        if self.build_effort is not None and self._graph is not None:
            self._graph.hnsw.efConstruction = self.build_effort

    def load(self, path: Path, *, dimension: int, metric: Metric, is_mapped: bool = False) -> None:
        self._factory = self.factory(dimension, 1)
        self._take(read_raw(path, self._factory, is_mapped=is_mapped), metric)

    def _take(self, raw: Any, metric: Metric) -> None:
        self.raw, self.metric, self.dimension = raw, metric, int(raw.d)
        self._is_binary = self._factory.startswith("B")
        self._ivf = None if self._is_binary else inner_ivf(raw)
        self._graph = None if self._is_binary else inner_graph(raw)
        self.is_exact = isinstance(raw, faiss.IndexFlat)
        self.keeps_vectors = self.is_exact or isinstance(raw, faiss.IndexHNSWFlat)

    @property
    def description(self) -> str:
        """FAISS's factory string, with the number of lists that there are."""
        return self._factory if self._ivf is None else re.sub(r"IVF\d+", f"IVF{self._ivf.nlist}", self._factory)

    @property
    def rows(self) -> int:
        return int(self.raw.ntotal)

    @property
    def needs_training(self) -> bool:
        return not self.raw.is_trained

    @property
    def knob(self) -> Knob | None:
        """``nprobe`` of inverted lists, ``efSearch`` of a graph."""
        if self._ivf is not None:
            return Knob(name="nprobe", default=int(self._ivf.nprobe), largest=int(self._ivf.nlist))
        if self._graph is None:
            return None
        default = int(self._graph.hnsw.efSearch)
        return Knob(name="efSearch", least=16, default=default, largest=max(self.rows, 1), is_beam=True)

    # ------------------------------------------------------------------------------------------- filling
    def training_rows(self, rows: int) -> int:
        """64 vectors per inverted list or centroid (k-means gains little beyond), at most 128 MiB of them."""
        lists = max((int(number) for number in re.findall(r"IVF(\d+)", self._factory)), default=0)
        return min(rows, max(64 * lists, 256 * 64), max((128 << 20) // (4 * self.dimension), 1024))

    def train(self, sample: Vectors, *, seed: int) -> None:
        """Fit quantisers.

        Product codes are not ordered for polysemous search (seven eighths of their training), which nothing here does.
        K-means takes as few vectors as there are without FAISS's own warnings. Scalar quantisers clip at the range of
        their training sample, so a small sample's range is widened: by a tenth each way at 10,000 rows, more below.

        Raises:
            SearchError: too few vectors for the kind.
        """
        inner = self.raw if self._ivf is None else self._ivf
        if hasattr(inner, "sq"):
            inner.sq.rangestat = faiss.ScalarQuantizer.RS_minmax
            inner.sq.rangestat_arg = min(1.0, 10.0 / max(len(sample), 1) ** 0.5)
        if hasattr(inner, "do_polysemous_training"):
            inner.do_polysemous_training = False
        for holder in (inner, getattr(inner, "pq", None)):
            if clustering := getattr(holder, "cp", None):
                clustering.seed, clustering.min_points_per_centroid = seed % (1 << 31), 1
        try:
            self.raw.train(self._coded(sample))
        except RuntimeError as error:
            raise SearchError(f"training on {len(sample)} vectors failed: {reason(error)}") from None

    def add(self, vectors: Vectors) -> None:
        self.raw.add(self._coded(vectors))

    def take_codes(self, other: VectorIndex, rows: Rows) -> bool:
        return isinstance(other, FaissIndex) and not self._is_binary and copy_codes(other.raw, self.raw, rows)

    def save(self, write: Write) -> None:
        writer = faiss.PyCallbackIOWriter(write, IO_BLOCK)
        (faiss.write_index_binary if self._is_binary else faiss.write_index)(self.raw, writer)

    # ----------------------------------------------------------------------------------------- searching
    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None = None, effort: int | None = None
    ) -> tuple[Scores, Rows]:
        """See ``VectorIndex``; the filter is applied inside FAISS where the kind can."""
        if self.is_exact and len(queries) >= BATCH and k <= self.rows:
            return self._compare_all(queries, k, allowed)
        if self._graph is not None and allowed is not None and np.count_nonzero(allowed) < RARE * self.rows:
            storage = faiss.downcast_index(self.raw.storage) if self._graph is self.raw else self.raw
            scores, rows = storage.search(queries, k, params=faiss.SearchParameters(sel=_selector(allowed)))
            return self._score(scores), rows
        try:
            scores, rows = self._search(queries, k, effort, allowed)
        except RuntimeError:
            if allowed is None:
                raise
            missing = self.dimension if self._is_binary else float(worst(self.metric))
            scores, rows = search_wider(lambda wider: self._search(queries, wider, effort), k, allowed, missing)
        return self._score(scores), rows

    def within(
        self, queries: Vectors, threshold: float, *, allowed: Mask | None = None, effort: int | None = None
    ) -> tuple[Rows, NDArray[np.float32], Rows]:
        limit: float = threshold
        parameters = {} if self._is_binary else {"params": self._parameters(effort, allowed)}
        if self._is_binary:
            differing = threshold / 4 if self.metric == "l2" else (
                np.arccos(np.clip(threshold, -1.0, 1.0)) / np.pi * self.dimension
            )
            limit = int(np.floor(np.clip(differing, -1, self.dimension))) + 1
        elif self.metric != "l2":
            limit = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))  # FAISS leaves out the limit itself
        try:
            offsets, scores, rows = self.raw.range_search(self._coded(queries), limit, **parameters)
        except RuntimeError as error:
            raise SearchError(f"this kind of index has no range search: {reason(error)}") from None
        offsets = offsets.astype(np.int64)
        if allowed is not None and len(rows):
            keep = allowed[rows]
            offsets, scores, rows = np.append(0, np.cumsum(keep))[offsets], scores[keep], rows[keep]
        return offsets, self._score(scores), rows

    def reconstruct(self, rows: Rows) -> Vectors:
        """See ``VectorIndex``; quantised kinds give approximations, binary ones signs."""
        if isinstance(self._ivf, faiss.IndexIVFFastScan):  # FAISS crashes here
            raise SearchError("fast-scan codes cannot be read back; build with rescore to keep vectors")
        lists = self.raw if isinstance(self.raw, faiss.IndexBinaryIVF) else self._ivf
        try:
            if lists is not None:
                with self._lock:
                    lists.make_direct_map()
            if not self._is_binary:
                return np.asarray(self.raw.reconstruct_batch(np.ascontiguousarray(rows)), dtype=np.float32)
        except RuntimeError as error:
            raise SearchError(f"this kind of index cannot give vectors back: {reason(error)}") from None
        codes = np.array([self.raw.reconstruct(row) for row in rows.tolist()], dtype=np.uint8)
        bits = np.unpackbits(codes.reshape(len(rows), -1), axis=1, count=self.dimension, bitorder="little")
        signs = bits.astype(np.float32) * 2 - 1
        return signs / np.float32(math.sqrt(self.dimension)) if self.metric == "cosine" else signs

    # ------------------------------------------------------------------------------------------- inside
    def _compare_all(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        import torch

        from sentemb.maths.inner_products import ExactSearch

        store = faiss.rev_swig_ptr(self.raw.get_xb(), self.rows * self.dimension).reshape(self.rows, self.dimension)
        return ExactSearch(torch.from_numpy(store), "l2" if self.metric == "l2" else "dot").top(queries, k, allowed)

    def _coded(self, vectors: Vectors) -> NDArray[Any]:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        return np.packbits(vectors > 0, axis=1, bitorder="little") if self._is_binary else vectors

    def _score(self, scores: NDArray[Any]) -> NDArray[np.float32]:
        scores = scores.astype(np.float32, copy=False)
        if not self._is_binary:
            return scores
        return 4 * scores if self.metric == "l2" else np.cos(np.float32(np.pi) * scores / self.dimension)

    def _parameters(self, effort: int | None, allowed: Mask | None) -> Any:
        selected = None if allowed is None else _selector(allowed)
        if self._ivf is not None:
            nprobe = min(effort or self._ivf.nprobe, self._ivf.nlist)
            return faiss.SearchParametersIVF(nprobe=nprobe, sel=selected)
        if self._graph is not None:
            return faiss.SearchParametersHNSW(efSearch=effort or self._graph.hnsw.efSearch, sel=selected)
        return None if selected is None else faiss.SearchParameters(sel=selected)

    def _search(
        self, queries: Vectors, k: int, effort: int | None, allowed: Mask | None = None
    ) -> tuple[NDArray[Any], Rows]:
        scores, rows = self.raw.search(self._coded(queries), k, params=self._parameters(effort, allowed))
        return scores, rows


def _selector(allowed: Mask) -> Any:
    """FAISS's form of the rows that may be found."""
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
