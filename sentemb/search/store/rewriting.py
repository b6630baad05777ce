"""Live rows of several segments as one new segment: codes are copied where they can be, else vectors re-added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.search.store.documents import DocumentWriter
from sentemb.search.store.manifest import Document, SegmentEntry
from sentemb.search.store.segment import Segment
from sentemb.search.store.spool import BLOCK
from sentemb.search.store.writing import Recipe
from sentemb.search.vectors.faiss_vectors import Vectors

MAX_SEGMENTS = 8


def to_merge(rows: Sequence[int], is_tail: Sequence[bool]) -> list[int]:
    """Positions of segments to merge so that few remain; none while there are at most ``MAX_SEGMENTS``.

    The smallest are taken, and then each next one that is not more than twice as large as all taken so far: a row
    is rewritten about log₂(rows) times in its life (a log-structured merge).
    """
    if len(rows) <= MAX_SEGMENTS:
        return []
    order = sorted(range(len(rows)), key=lambda place: (not is_tail[place], rows[place]))
    chosen = order[:2]
    total = sum(rows[place] for place in chosen)
    for place in order[2:]:
        if rows[place] > 2 * total and len(rows) - len(chosen) + 1 <= MAX_SEGMENTS // 2:
            break
        if rows[place] > 2 * total and rows[place] > 10_000:
            break
        chosen.append(place)
        total += rows[place]
    return sorted(chosen)


class RowsSource:
    """Chosen rows of several segments as one source of vectors (at the best precision that is kept)."""

    def __init__(self, segments: Sequence[Segment], rows: Sequence[NDArray[np.int64]], dimension: int) -> None:
        self._segments = segments
        self._chosen = rows
        self._starts = np.concatenate([[0], np.cumsum([len(some) for some in rows])])
        self.rows = int(self._starts[-1])
        self.dimension = dimension

    def block(self, start: int, stop: int) -> Vectors:
        """Rows start … stop - 1."""
        return self.take(np.arange(start, min(stop, self.rows)))

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """The given rows."""
        out = np.empty((len(rows), self.dimension), dtype=np.float32)
        for segment, chosen, first in zip(self._segments, self._chosen, self._starts[:-1], strict=True):
            inside = (rows >= first) & (rows < first + len(chosen))
            if inside.any():
                out[inside] = segment.exact_vectors(chosen[rows[inside] - first])
        return out


def rewrite(
    recipe: Recipe, number: int, segments: Sequence[Segment], rows: Sequence[NDArray[np.int64]], writer: DocumentWriter,
    *, is_tail: bool, can_copy_codes: bool,
) -> SegmentEntry:
    """Write one segment with the given rows of the segments, in order.

    Args:
        can_copy_codes: the segments were made from this recipe's trained template, so their codes mean the same.
    """
    for segment, chosen in zip(segments, rows, strict=True):
        _copy_documents(segment, chosen, writer)
    writer.make_lookup(recipe.manifest.indexed_fields)
    source = RowsSource(segments, rows, recipe.manifest.dimension)
    index = recipe.empty(is_tail=is_tail)
    for segment, chosen in zip(segments, rows, strict=True):
        if can_copy_codes and index.can_copy_from(segment.vectors):
            index.copy_from(segment.vectors, chosen)
            continue
        for start in range(0, len(chosen), BLOCK):
            index.add(segment.exact_vectors(chosen[start : start + BLOCK]))
    return recipe.segment(number, source, writer, is_tail=is_tail, index=index)


def _copy_documents(segment: Segment, rows: NDArray[np.int64], writer: DocumentWriter) -> None:
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK].tolist()
        found = segment.documents.fetch(some)
        documents: list[Document] = [found[row] for row in some]
        writer.append(documents, [document.id for document in documents if document.id is not None])
