"""What the search page shows of an index: a map of its documents in the plane, and the fields to filter by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.maths.principal import principal_axes
from sentemb.search import SearchIndex
from sentemb.search.store.generation import Generation
from sentemb.types import Vectors

_POINTS = 5000  # of a map; of a larger index every n-th document
_ROWS = 2000  # that are looked at for fields
_CHOICES = 24  # a field of at most so many values is chosen from a list
_TEXT = 160  # letters of a text that a point shows


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A generation's documents on their first two principal components."""

    generation: int
    mean: Vectors  # (d,)
    axes: Vectors  # (d, 2)
    points: list[dict[str, Any]]  # id, x, y, text, metadata

    @classmethod
    def of(cls, generation: Generation) -> Landscape:
        """Project the vectors of at most 5,000 documents, evenly chosen. Deterministic."""
        positions = _live(generation, _POINTS)
        vectors = generation.vectors_at(positions)
        mean, axes = vectors.sum(axis=0) / max(1, len(vectors)), np.eye(generation.dimension, 2, dtype=np.float32)
        if len(vectors) and generation.dimension > 1:
            axes = principal_axes(vectors, 2, centred=True)
        documents = generation.documents_of(positions.tolist())
        points = [
            {"id": document.id, "x": x, "y": y, "text": (document.text or "")[:_TEXT], "metadata": document.metadata}
            for document, (x, y) in zip(
                map(documents.__getitem__, positions.tolist()), ((vectors - mean) @ axes).tolist(), strict=True
            )
        ]
        return cls(generation=generation.manifest.generation, mean=mean, axes=axes, points=points)

    def place_of(self, vector: Vectors) -> list[float]:
        """Where a query vector (d,) lies."""
        coordinates: list[float] = ((vector - self.mean) @ self.axes).tolist()
        return coordinates


def fields_of(index: SearchIndex) -> list[dict[str, Any]]:
    """Metadata fields with what a page needs to filter by them, from the first 2,000 documents (evenly chosen).

    Each has ``name``, ``kind`` (text, number, truth) and ``values`` (where they are few) or ``least`` and ``most``.
    """
    generation = index.generation
    documents = generation.documents_of(_live(generation, _ROWS).tolist()).values()
    names = dict.fromkeys(name for document in documents for name in document.metadata)
    described = (_field(name, [document.metadata.get(name) for document in documents]) for name in names)
    return [field for field in described if field is not None]


def _field(name: str, values: Sequence[Any]) -> dict[str, Any] | None:
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds == {bool}:
        return {"name": name, "kind": "truth", "values": [False, True]}
    if kinds == {str}:
        distinct = sorted(set(present))
        return {"name": name, "kind": "text", "values": distinct} if len(distinct) <= _CHOICES else None
    if kinds and kinds <= {int, float}:
        return {"name": name, "kind": "number", "least": min(present), "most": max(present)}
    return None


def _live(generation: Generation, most: int) -> NDArray[np.int64]:
    """Positions of live documents, every n-th where there are more than ``most``."""
    parts = [
        segment.live_rows + first for segment, first in zip(generation.segments, generation.starts, strict=True)
    ]
    live = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    step = max(1, -(-len(live) // most))
    return live[::step].astype(np.int64)
