"""A FAISS index of one segment behind one face: float or binary, flat, graph or inverted lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.search.store.manifest import Metric
from sentemb.search.vectors.faiss_codes import (
    can_copy_codes,
    clusterings,
    codes_of_binary,
    copy_codes,
    inner_graph,
    inner_ivf,
    rotation_quantisers,
)
from sentemb.search.vectors.faiss_files import create_raw, is_binary, read_raw, reason, write_raw
from sentemb.search.vectors.faiss_filters import keep_allowed, search_wider, selector

faiss: Any = _faiss  # its own type stubs know half of its classes
Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]
EffortName = Literal["nprobe", "efSearch"]


class VectorIndex:
    """Vectors of rows 0 … rows - 1 and the search among them.

    For a binary factory (``B…``) a vector is kept as the signs of its values; scores are then the cosine that the
    share of differing signs suggests, cos(π · differing / d) (Charikar 2002, STOC, eq. 3), or for l2 the squared
    distance of the signs, 4 · differing.
    """

    def __init__(self, raw: Any, *, metric: Metric, is_binary: bool) -> None:
        self.raw = raw
        self.metric = metric
        self.is_binary = is_binary
        self._ivf = None if is_binary else inner_ivf(raw)
        self._graph = None if is_binary else inner_graph(raw)
        self._takes_selector: bool | None = None
        self._rotations: list[Any] = []  # FAISS keeps pointers to them

    @classmethod
    def create(cls, factory: str, dimension: int, metric: Metric) -> VectorIndex:
        """An empty, perhaps untrained, index from a FAISS factory string.

        Raises:
            SearchError: FAISS does not know the string, or it does not fit the dimension.
        """
        return cls(create_raw(factory, dimension, metric), metric=metric, is_binary=is_binary(factory))

    @classmethod
    def read(cls, path: Path, factory: str, metric: Metric, *, is_mapped: bool = False) -> VectorIndex:
        """Read a file whose checksum was verified.

        Args:
            factory: what it was made with.
            is_mapped: leave vectors (or inverted lists) in the file and map it, instead of loading them.

        Raises:
            SearchError: FAISS cannot read it.
        """
        raw = read_raw(path, factory, is_mapped=is_mapped)
        return cls(raw, metric=metric, is_binary=is_binary(factory))

    # ----------------------------------------------------------------------------------------------- facts
    @property
    def rows(self) -> int:
        """Vectors inside."""
        return int(self.raw.ntotal)

    @property
    def dimension(self) -> int:
        """Width of a vector."""
        return int(self.raw.d)

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be added."""
        return bool(self.raw.is_trained)

    @property
    def is_exact(self) -> bool:
        """Whether a search compares every vector at full precision."""
        return isinstance(self.raw, faiss.IndexFlat)

    @property
    def keeps_vectors(self) -> bool:
        """Whether full-precision vectors of any row can be had at once."""
        return self.is_exact or isinstance(self.raw, faiss.IndexHNSWFlat)

    @property
    def default_effort(self) -> int:
        """FAISS's own effort, 1 where there is no knob."""
        if self._ivf is not None:
            return int(self._ivf.nprobe)
        return int(self._graph.hnsw.efSearch) if self._graph is not None else 1

    @property
    def effort_name(self) -> EffortName | None:
        """The knob that trades speed for recall."""
        if self._ivf is not None:
            return "nprobe"
        return "efSearch" if self._graph is not None else None

    @property
    def max_effort(self) -> int:
        """Effort beyond which nothing changes."""
        if self._ivf is not None:
            return int(self._ivf.nlist)
        return max(self.rows, 1)

    # ------------------------------------------------------------------------------------------- filling
    def prepare_training(self, seed: int, rows: int) -> None:
        """Seed k-means, and make training on ``rows`` vectors fit for others that come later.

        K-means takes as few vectors as there are without FAISS's own warnings. Scalar quantisers clip at the range of
        their training sample, so a small sample's range is widened: by a tenth each way at 10,000 rows, more below.
        """
        quantiser = getattr(self._ivf if self._ivf is not None else self.raw, "sq", None)
        if quantiser is not None:
            quantiser.rangestat = faiss.ScalarQuantizer.RS_minmax
            quantiser.rangestat_arg = min(1.0, 10.0 / max(rows, 1) ** 0.5)
        self._rotations = rotation_quantisers(self.raw)
        for clustering in [
            *clusterings(self._ivf if self._ivf is not None else self.raw), *(made.cp for made in self._rotations),
        ]:
            clustering.seed = seed % (1 << 31)
            clustering.min_points_per_centroid = 1

    def train(self, sample: Vectors) -> None:
        """Fit quantisers; does nothing for kinds that need none.

        Raises:
            SearchError: too few vectors for the kind.
        """
        try:
            self.raw.train(self._coded(sample))
        except RuntimeError as error:
            raise SearchError(f"training on {len(sample)} vectors failed: {reason(error)}") from None

    def add(self, vectors: Vectors) -> None:
        """Append rows."""
        self.raw.add(self._coded(vectors))

    def can_copy_from(self, other: VectorIndex) -> bool:
        """Whether ``copy_from`` can take the other's codes (both made from one trained template)."""
        return not self.is_binary and can_copy_codes(self.raw, other.raw)

    def copy_from(self, other: VectorIndex, rows: NDArray[np.int64]) -> None:
        """Append the given rows (ascending) of another index of the same template, code for code."""
        copy_codes(other.raw, self.raw, rows)

    def write(self, sink: Callable[[bytes], int]) -> None:
        """Serialise through ``sink``, which takes each block and may raise."""
        write_raw(self.raw, sink, is_binary=self.is_binary)

    # ----------------------------------------------------------------------------------------- searching
    def search(
        self, queries: Vectors, k: int, *, effort: int | None = None, allowed: Mask | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows (queries, k), best first; missing places have row -1.

        Args:
            effort: nprobe or efSearch; the index's own where None.
            allowed: rows that may be found, (rows,); all where None. Applied inside FAISS where the kind can.
        """
        if allowed is None:
            scores, rows = self._raw_search(queries, k, effort, None)
        elif self._can_select():
            scores, rows = self._raw_search(queries, k, effort, selector(allowed))
        else:
            missing = float("inf" if self.metric == "l2" else "-inf")
            scores, rows = search_wider(
                lambda asked: self._raw_search(queries, asked, effort, None), k, allowed,
                self.dimension if self.is_binary else missing,
            )
        return self._score(scores), rows

    def scan(
        self, queries: Vectors, k: int, allowed: Mask | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Like ``search``, but a graph's own vectors are compared one by one."""
        is_graph = self._graph is not None and self._graph is self.raw
        storage = faiss.downcast_index(self.raw.storage) if is_graph else self.raw
        parameters = None if allowed is None else faiss.SearchParameters(sel=selector(allowed))
        scores, rows = storage.search(queries, k, params=parameters)
        return scores, rows

    def range(
        self, queries: Vectors, threshold: float, *, effort: int | None = None, allowed: Mask | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Everything at least as good as ``threshold``: (offsets (queries + 1,), scores, rows), not sorted.

        Raises:
            SearchError: this kind has no range search.
        """
        selected = selector(allowed) if allowed is not None and self._can_select() else None
        limit: float = threshold
        if self.is_binary:
            differing = threshold / 4 if self.metric == "l2" else (
                np.arccos(np.clip(threshold, -1.0, 1.0)) / np.pi * self.dimension
            )
            limit = int(np.floor(np.clip(differing, -1, self.dimension))) + 1
        elif self.metric != "l2":
            limit = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))  # FAISS leaves out the limit itself
        try:
            if self.is_binary:
                offsets, scores, rows = self.raw.range_search(self._coded(queries), limit)
                selected = None
            else:
                offsets, scores, rows = self.raw.range_search(queries, limit, params=self._parameters(effort, selected))
        except RuntimeError as error:
            raise SearchError(f"this kind of index has no range search: {reason(error)}") from None
        offsets = offsets.astype(np.int64)
        if allowed is not None and selected is None and len(rows):
            offsets, scores, rows = keep_allowed(offsets, scores, rows, allowed)
        return offsets, self._score(scores), rows

    def vectors_of(self, rows: NDArray[np.int64]) -> Vectors:
        """Vectors of the rows as the index keeps them (quantised kinds give approximations, binary ones signs).

        Raises:
            SearchError: the kind cannot give vectors back.
        """
        if self.is_binary:
            return self._signs_of(rows)
        if isinstance(self._ivf, faiss.IndexIVFFastScan):  # FAISS crashes here
            raise SearchError("fast-scan codes cannot be read back; build with rescore to keep vectors")
        try:
            if self._ivf is not None:
                self._ivf.make_direct_map()
            return np.asarray(self.raw.reconstruct_batch(np.ascontiguousarray(rows, dtype=np.int64)), dtype=np.float32)
        except RuntimeError as error:
            raise SearchError(f"this kind of index cannot give vectors back: {reason(error)}") from None

    # ------------------------------------------------------------------------------------------- inside
    def _signs_of(self, rows: NDArray[np.int64]) -> Vectors:
        codes = codes_of_binary(self.raw, rows)
        signs = np.unpackbits(codes, axis=1, count=self.dimension, bitorder="little").astype(np.float32) * 2 - 1
        return signs / np.float32(np.sqrt(self.dimension)) if self.metric == "cosine" else signs

    def _coded(self, vectors: Vectors) -> NDArray[Any]:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        return np.packbits(vectors > 0, axis=1, bitorder="little") if self.is_binary else vectors

    def _score(self, scores: NDArray[Any]) -> NDArray[np.float32]:
        if not self.is_binary:
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

    def _raw_search(
        self, queries: Vectors, k: int, effort: int | None, selected: Any
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        parameters = self._parameters(effort, selected) if not self.is_binary else (
            None if selected is None else faiss.SearchParameters(sel=selected)
        )
        scores, rows = self.raw.search(self._coded(queries), k, params=parameters)
        return scores, rows

    def _can_select(self) -> bool:
        """Whether this kind applies an id selector inside its search; asked of FAISS once."""
        if self._takes_selector is None:
            probe = np.zeros((1, self.dimension), dtype=np.float32)
            try:
                self._raw_search(probe, 1, 1, selector(np.zeros(self.rows, dtype=bool)))
                self._takes_selector = True
            except RuntimeError:
                self._takes_selector = False
        return self._takes_selector
