"""What the search page and notebooks show of an index: a map of its documents in the plane, fields to filter by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError, did_you_mean
from sentemb.maths.principal import principal_axes
from sentemb.pages import Chart, Points, point_chart
from sentemb.search.store.generation import Generation
from sentemb.types import Vectors

if TYPE_CHECKING:
    from sentemb.search import SearchIndex

_POINTS = 5000  # of a map; of a larger index every n-th document
_ROWS = 2000  # that are looked at for fields
_CHOICES = 24  # a field of at most so many values is chosen from a list
_COLOURS = 5  # values of a field that are told apart in a drawing
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


def map_chart(landscape: Landscape, colour: str | None = None) -> Chart:
    """A drawing of the map; ``colour`` is a field, whose five commonest values have marks of their own.

    Raises: SearchError: no document has the field.
    """
    fields = dict.fromkeys(name for point in landscape.points for name in point["metadata"])
    if colour is not None and colour not in fields:
        known = ", ".join(map(str, fields)) or "none"
        raise SearchError(f'colour = "{colour}": no document has this field; known: {known}'
                          f"{did_you_mean(colour, list(fields))}")
    values = [str(point["metadata"].get(colour, "")) for point in landscape.points]
    common = [value for value, _ in Counter(values).most_common(_COLOURS)]
    groups: dict[str, list[dict[str, Any]]] = {value: [] for value in common}
    for value, point in zip(values, landscape.points, strict=True):
        groups.setdefault(value if value in common else "others", []).append(point)
    return point_chart(
        [Points(name=name or "none", places=[(point["x"], point["y"]) for point in points],
                texts=[f"{point['id']}: {point['text']}" for point in points]) for name, points in groups.items()],
        title="Map of the documents", x="first principal direction", y="second",
    )  # fmt: skip


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
