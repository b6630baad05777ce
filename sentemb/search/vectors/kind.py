"""The interface between the store and the libraries that search vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric
from sentemb.parts import Part

Vectors = NDArray[np.float32]  # (rows, dimension)
Mask = NDArray[np.bool_]  # (rows,)
Scores = NDArray[np.float32]  # (queries, k)
Rows = NDArray[np.int64]
Write = Callable[[bytes], object]


@dataclass(frozen=True, kw_only=True)
class Knob:
    """The number that trades a search's speed for its recall."""

    name: str  # the library's word for it
    least: int = 1  # where tuning begins
    default: int
    largest: int  # beyond it nothing changes
    is_beam: bool = False  # a search can find no more rows than this


class VectorIndex(Part, room="kinds"):
    """One kind of index over the vectors of rows 0, 1, 2, …

    ``create`` or ``load`` comes first, then, in this order, ``train`` (once, where ``needs_training``), ``add`` (any
    number of times) and searches. Scores are inner products (larger is better; vectors of a cosine index have unit
    length) or, for l2, squared distances (smaller is better). ``contract.CHECKS`` tests a kind.

    Attributes:
        is_coarse: without exact re-scoring its order is poor, so the store keeps half-precision vectors beside it.
        is_exact: a search compares every vector in full precision.
        keeps_vectors: ``reconstruct`` gives the vectors that were added, at once.
        can_reconstruct: False makes the store keep half-precision vectors beside it.
    """

    is_coarse: ClassVar[bool] = False
    is_exact: bool = False
    keeps_vectors: bool = False
    can_reconstruct: bool = True
    metric: Metric
    dimension: int

    # --------------------------------------------------------------------------------- what a kind must have
    @property
    def rows(self) -> int:
        """Vectors inside."""
        raise NotImplementedError

    def create(self, *, dimension: int, metric: Metric, rows: int) -> None:
        """Begin an empty index that will hold about ``rows`` vectors.

        Raises:
            SearchError: the kind does not fit the dimension or the metric.
        """
        raise NotImplementedError

    def add(self, vectors: Vectors) -> None:
        """Append rows."""
        raise NotImplementedError

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None = None, effort: int | None = None
    ) -> tuple[Scores, Rows]:
        """Scores and rows (queries, k), best first; places without a result have row -1.

        Args:
            allowed: rows that may be found; all where None. See also ``search_wider``.
            effort: how hard to look, see ``knob``; its default where None.
        """
        raise NotImplementedError

    def reconstruct(self, rows: Rows) -> Vectors:
        """Vectors of the rows as the index keeps them, perhaps approximately; safe in several threads."""
        raise NotImplementedError

    def save(self, write: Write) -> None:
        """Give the whole index to ``write``, block by block; it may raise. See also ``through_file``."""
        raise NotImplementedError

    def load(self, path: Path, *, dimension: int, metric: Metric, is_mapped: bool = False) -> None:
        """Take up what ``save`` wrote; ``is_mapped`` leaves vectors in the file where the kind can."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------- what a kind may have
    @property
    def description(self) -> str:
        """What was made of the settings, in the library's own words."""
        return repr(self)

    @property
    def needs_training(self) -> bool:
        """Whether ``train`` must come before ``add``."""
        return False

    def training_rows(self, rows: int) -> int:
        """Vectors to train on, out of ``rows``."""
        return 0

    def train(self, sample: Vectors, *, seed: int) -> None:
        """Learn from vectors like those that will be added."""

    @property
    def knob(self) -> Knob | None:
        """How hard a search looks; None where there is no choice."""
        return None

    def within(
        self, queries: Vectors, threshold: float, *, allowed: Mask | None = None, effort: int | None = None
    ) -> tuple[Rows, NDArray[np.float32], Rows]:
        """Everything at least as good as ``threshold``: (offsets (queries + 1,), scores, rows), in any order.

        Raises:
            SearchError: the kind has no such search.
        """
        raise SearchError(f"{type(self).__name__} has no search by a threshold; build a flat or an IVF index for it")

    def take_codes(self, other: VectorIndex, rows: Rows) -> bool:
        """Append rows (ascending) of an index of equal settings and training without decoding; False: it cannot."""
        return False


def through_file(save: Callable[[str], object], write: Write) -> None:
    """``VectorIndex.save`` for a library that saves to a path only."""
    with TemporaryDirectory(prefix="sentemb-") as folder:
        path = Path(folder) / "index"
        save(str(path))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                write(block)


def search_wider(
    search: Callable[[int], tuple[NDArray[Any], Rows]], k: int, allowed: Mask, worst: float
) -> tuple[NDArray[Any], Rows]:
    """A filtered search for a library that has none: ask for more until k allowed rows are there, or all are.

    Args:
        search: gives scores and rows (queries, as many as it is told to), best first.
        k: allowed rows wanted; missing places have row -1.
        allowed: rows that may be found, (rows,).
        worst: score of missing places.
    """
    wanted = min(k, int(allowed.sum()))
    wider = min(len(allowed), 2 * k)
    while True:
        scores, rows = search(wider)
        keep = (rows >= 0) & allowed[rows]
        if wider >= len(allowed) or int(keep.sum(axis=1).min()) >= wanted:
            break
        wider = min(len(allowed), wider * 4)
    rows, scores = np.where(keep, rows, -1), np.where(keep, scores, worst).astype(scores.dtype)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    missing = ((0, 0), (0, k - order.shape[1]))
    return (
        np.pad(np.take_along_axis(scores, order, axis=1), missing, constant_values=worst),
        np.pad(np.take_along_axis(rows, order, axis=1), missing, constant_values=-1),
    )
