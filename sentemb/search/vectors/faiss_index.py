"""FAISS behind the interface of kinds: float or binary, flat, graph or inverted lists."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric, worst
from sentemb.search.vectors.faiss_objects import (
    can_copy_codes,
    clusterings,
    codes_of_binary,
    copy_codes,
    create_raw,
    faiss,
    inner_graph,
    inner_ivf,
    is_binary,
    read_raw,
    reason,
    rotation_quantisers,
    write_raw,
)
from sentemb.search.vectors.kind import Knob, Mask, Rows, Scores, VectorIndex, Vectors, Write, search_wider

RARE = 0.1  # a graph search meets few allowed rows when they are rarer; a scan of them is exact and costs less
BATCH = 32  # queries from which one product of all of them is faster than FAISS's scan


class FaissIndex(VectorIndex):
    """An index that FAISS makes from a factory string.

    A binary factory (``B…``) keeps the signs of the values; scores are then the cosine that the share of differing
    signs suggests, cos(π · differing / d) (Charikar 2002, STOC, eq. 3), or for l2 the squared distance of the signs,
    4 · differing.
    """

    string: ClassVar[str]
    build_effort: int | None = None  # a graph's efConstruction
    raw: Any

    def __init__(self) -> None:
        self._takes_selector: bool | None = None
        self._rotations: list[Any] = []  # FAISS keeps pointers to them
        self._lock = Lock()

    def factory(self, dimension: int, rows: int) -> str:
        """FAISS's factory string for about ``rows`` vectors."""
        return self.string

    def create(self, *, dimension: int, metric: Metric, rows: int) -> None:
        self._description = self.factory(dimension, rows)
        self._take(create_raw(self._description, dimension, metric), metric)
        if self.build_effort is not None and self._graph is not None:
            self._graph.hnsw.efConstruction = self.build_effort

    def load(self, path: Path, *, dimension: int, metric: Metric, is_mapped: bool = False) -> None:
        self._description = self.factory(dimension, 1)
        self._take(read_raw(path, self._description, is_mapped=is_mapped), metric)

    def _take(self, raw: Any, metric: Metric) -> None:
        self.raw, self.metric, self.dimension = raw, metric, int(raw.d)
        self._is_binary = is_binary(self._description)
        self._ivf = None if self._is_binary else inner_ivf(raw)
        self._graph = None if self._is_binary else inner_graph(raw)
        self._knob: Knob | None = None
        if self._ivf is not None:
            self._knob = Knob(name="nprobe", default=int(self._ivf.nprobe), largest=int(self._ivf.nlist))
        elif self._graph is not None:
            default = int(self._graph.hnsw.efSearch)
            self._knob = Knob(name="efSearch", least=16, default=default, largest=1, is_beam=True)
        self.is_exact = isinstance(raw, faiss.IndexFlat)
        self.keeps_vectors = self.is_exact or isinstance(raw, faiss.IndexHNSWFlat)

    # ----------------------------------------------------------------------------------------------- facts
    @property
    def description(self) -> str:
        """FAISS's factory string, with the number of lists that there are."""
        lists = self._ivf.nlist if self._ivf is not None else 0
        return re.sub(r"IVF\d+", f"IVF{lists}", self._description)

    @property
    def rows(self) -> int:
        """Vectors inside."""
        return int(self.raw.ntotal)

    @property
    def needs_training(self) -> bool:
        """Whether ``train`` must come before ``add``."""
        return not self.raw.is_trained

    @property
    def knob(self) -> Knob | None:
        """``nprobe`` of inverted lists, ``efSearch`` of a graph."""
        if self._knob is not None and self._knob.is_beam and self._knob.largest != self.rows:
            self._knob = replace(self._knob, largest=max(self.rows, 1))
        return self._knob

    # ------------------------------------------------------------------------------------------- filling
    def training_rows(self, rows: int) -> int:
        """64 vectors per inverted list or centroid (k-means gains little beyond), at most 128 MiB of them."""
        lists = max((int(number) for number in re.findall(r"IVF(\d+)", self._description)), default=0)
        wanted = max(64 * lists, 256 * 64, 4096)
        return min(rows, wanted, max((128 << 20) // (4 * self.dimension), 1024))

    def train(self, sample: Vectors, *, seed: int) -> None:
        """Fit quantisers.

        K-means takes as few vectors as there are without FAISS's own warnings. Scalar quantisers clip at the range of
        their training sample, so a small sample's range is widened: by a tenth each way at 10,000 rows, more below.

        Raises:
            SearchError: too few vectors for the kind.
        """
        inner = self._ivf if self._ivf is not None else self.raw
        quantiser = getattr(inner, "sq", None)
        if quantiser is not None:
            quantiser.rangestat = faiss.ScalarQuantizer.RS_minmax
            quantiser.rangestat_arg = min(1.0, 10.0 / max(len(sample), 1) ** 0.5)
        self._rotations = rotation_quantisers(self.raw)
        for clustering in [*clusterings(inner), *(quantiser.cp for quantiser in self._rotations)]:
            clustering.seed = seed % (1 << 31)
            clustering.min_points_per_centroid = 1
        try:
            self.raw.train(self._coded(sample))
        except RuntimeError as error:
            raise SearchError(f"training on {len(sample)} vectors failed: {reason(error)}") from None

    def add(self, vectors: Vectors) -> None:
        """Append rows."""
        self.raw.add(self._coded(vectors))

    def take_codes(self, other: VectorIndex, rows: Rows) -> bool:
        if not isinstance(other, FaissIndex) or self._is_binary or not can_copy_codes(self.raw, other.raw):
            return False
        copy_codes(other.raw, self.raw, rows)
        return True

    def save(self, write: Write) -> None:
        """Serialise through ``write``."""
        write_raw(self.raw, write, is_binary=self._is_binary)

    # ----------------------------------------------------------------------------------------- searching
    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None = None, effort: int | None = None
    ) -> tuple[Scores, Rows]:
        """See ``VectorIndex``; the filter is applied inside FAISS where the kind can."""
        if self.is_exact and len(queries) >= BATCH:
            return self._compare_all(queries, k, allowed)
        if allowed is None:
            scores, rows = self._search(queries, k, effort, None)
        elif self._graph is not None and np.count_nonzero(allowed) < RARE * self.rows:
            storage = faiss.downcast_index(self.raw.storage) if self._graph is self.raw else self.raw
            scores, rows = storage.search(queries, k, params=faiss.SearchParameters(sel=_selector(allowed)))
        elif self._can_select():
            scores, rows = self._search(queries, k, effort, _selector(allowed))
        else:
            missing = self.dimension if self._is_binary else float(worst(self.metric))
            scores, rows = search_wider(
                lambda wider: self._search(queries, wider, effort, None), k, allowed, missing
            )
        return self._score(scores), rows

    def within(
        self, queries: Vectors, threshold: float, *, allowed: Mask | None = None, effort: int | None = None
    ) -> tuple[Rows, NDArray[np.float32], Rows]:
        selected = _selector(allowed) if allowed is not None and self._can_select() else None
        limit: float = threshold
        if self._is_binary:
            differing = threshold / 4 if self.metric == "l2" else (
                np.arccos(np.clip(threshold, -1.0, 1.0)) / np.pi * self.dimension
            )
            limit = int(np.floor(np.clip(differing, -1, self.dimension))) + 1
        elif self.metric != "l2":
            limit = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))  # FAISS leaves out the limit itself
        try:
            if self._is_binary:
                offsets, scores, rows = self.raw.range_search(self._coded(queries), limit)
                selected = None
            else:
                offsets, scores, rows = self.raw.range_search(queries, limit, params=self._parameters(effort, selected))
        except RuntimeError as error:
            raise SearchError(f"this kind of index has no range search: {reason(error)}") from None
        offsets = offsets.astype(np.int64)
        if allowed is not None and selected is None and len(rows):
            offsets, scores, rows = _keep_allowed(offsets, scores, rows, allowed)
        return offsets, self._score(scores), rows

    def reconstruct(self, rows: Rows) -> Vectors:
        """See ``VectorIndex``; quantised kinds give approximations, binary ones signs."""
        if self._is_binary:
            return self._signs_of(rows)
        if isinstance(self._ivf, faiss.IndexIVFFastScan):  # FAISS crashes here
            raise SearchError("fast-scan codes cannot be read back; build with rescore to keep vectors")
        try:
            if self._ivf is not None:
                with self._lock:
                    self._ivf.make_direct_map()
            return np.asarray(self.raw.reconstruct_batch(np.ascontiguousarray(rows, dtype=np.int64)), dtype=np.float32)
        except RuntimeError as error:
            raise SearchError(f"this kind of index cannot give vectors back: {reason(error)}") from None

    # ------------------------------------------------------------------------------------------- inside
    def _compare_all(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        import torch

        from sentemb.maths.inner_products import ExactSearch

        store = faiss.rev_swig_ptr(self.raw.get_xb(), self.rows * self.dimension).reshape(self.rows, self.dimension)
        exact = ExactSearch(torch.from_numpy(store), "l2" if self.metric == "l2" else "dot")
        count = min(k, self.rows)
        scores, rows = exact.top(queries, count, allowed)
        if count == k:
            return scores, rows
        missing = ((0, 0), (0, k - count))
        return (
            np.pad(scores, missing, constant_values=worst(self.metric)), np.pad(rows, missing, constant_values=-1),
        )

    def _signs_of(self, rows: Rows) -> Vectors:
        codes = codes_of_binary(self.raw, rows)
        signs = np.unpackbits(codes, axis=1, count=self.dimension, bitorder="little").astype(np.float32) * 2 - 1
        return signs / np.float32(math.sqrt(self.dimension)) if self.metric == "cosine" else signs

    def _coded(self, vectors: Vectors) -> NDArray[Any]:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        return np.packbits(vectors > 0, axis=1, bitorder="little") if self._is_binary else vectors

    def _score(self, scores: NDArray[Any]) -> NDArray[np.float32]:
        if not self._is_binary:
            return np.asarray(scores, dtype=np.float32)
        if self.metric == "l2":
            return 4 * scores.astype(np.float32)
        return np.cos(np.pi * scores.astype(np.float32) / self.dimension).astype(np.float32)

    def _parameters(self, effort: int | None, selected: Any) -> Any:
        if self._ivf is not None:
            nprobe = min(effort or self._ivf.nprobe, self._ivf.nlist)
            if isinstance(self._ivf, faiss.IndexIVFPQ):
                return faiss.IVFPQSearchParameters(nprobe=nprobe, sel=selected)
            if isinstance(self._ivf, faiss.IndexIVFRaBitQ):
                return faiss.IVFRaBitQSearchParameters(nprobe=nprobe, sel=selected)
            return faiss.SearchParametersIVF(nprobe=nprobe, sel=selected)
        if self._graph is not None:
            return faiss.SearchParametersHNSW(efSearch=effort or self._graph.hnsw.efSearch, sel=selected)
        return None if selected is None else faiss.SearchParameters(sel=selected)

    def _search(self, queries: Vectors, k: int, effort: int | None, selected: Any) -> tuple[NDArray[Any], Rows]:
        scores, rows = self.raw.search(self._coded(queries), k, params=self._parameters(effort, selected))
        return scores, rows

    def _can_select(self) -> bool:
        """Whether this kind applies an id selector inside its search; asked of FAISS once."""
        if self._takes_selector is None:
            probe = np.zeros((1, self.dimension), dtype=np.float32)
            try:
                self._search(probe, 1, 1, _selector(np.zeros(self.rows, dtype=bool)))
                self._takes_selector = True
            except RuntimeError:
                self._takes_selector = False
        return self._takes_selector


def _selector(allowed: Mask) -> Any:
    """FAISS's form of the rows that may be found."""
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _keep_allowed(
    offsets: NDArray[np.int64], scores: NDArray[Any], rows: NDArray[np.int64], allowed: Mask
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]:
    """A range search's (offsets (queries + 1,), scores, rows) without rows that are not allowed."""
    keep = allowed[rows]
    counts = np.add.reduceat(np.append(keep, 0), offsets[:-1]) * (np.diff(offsets) > 0)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), scores[keep], rows[keep]
