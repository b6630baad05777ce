"""Kinds of vector index: parts behind the interface ``VectorIndex``; FAISS is one implementation.

A name here is what ``--kind`` takes. FAISS itself is imported when one of its kinds is first used.
"""

from __future__ import annotations

from sentemb.search.vectors.kind import (
    Knob,
    Mask,
    Rows,
    Scores,
    VectorIndex,
    Vectors,
    Write,
    search_wider,
    through_file,
)

__all__ = [
    "PARTS", "Knob", "Mask", "Rows", "Scores", "VectorIndex", "Vectors", "Write", "search_wider", "through_file",
]  # fmt: skip

_FAISS = "sentemb.search.vectors.faiss_kinds"
PARTS: dict[str, type | str] = {
    "flat": f"{_FAISS}:Flat",
    "sq8": f"{_FAISS}:Sq8",
    "sqfp16": f"{_FAISS}:SqFp16",
    "hnsw": f"{_FAISS}:Hnsw",
    "ivf-flat": f"{_FAISS}:IvfFlat",
    "ivf-sq8": f"{_FAISS}:IvfSq8",
    "ivf-pq": f"{_FAISS}:IvfPq",
    "rabitq": f"{_FAISS}:RaBitQ",
    "binary": f"{_FAISS}:Binary",
    "faiss": f"{_FAISS}:Factory",
}
