"""What passes between rooms: frozen dataclasses with shapes, and the protocols that parts keep.

Sizes: n examples (anchors) of the whole batch over all devices, b of them on this device, m candidates,
d width of an embedding, t tokens of the longest row.
"""

from __future__ import annotations

from sentemb.types.embedders import (
    DevScores,
    Embedder,
    Hits,
    IdentifiedEmbedder,
)
from sentemb.types.step import (
    Batch,
    Build,
    Component,
    Encoded,
    Footprint,
    LoadEncoder,
    PairScores,
    Rows,
    SentenceModule,
    Services,
    Share,
    ViewContext,
)
from sentemb.types.texts import (
    UNKNOWN,
    Cosine,
    Examples,
    Frame,
    Names,
    RowFacts,
    Similarity,
    Temperature,
    TokenColumn,
    Tokens,
    Vectors,
    View,
    Views,
    Vocabulary,
)

__all__ = [
    "UNKNOWN",
    "Batch",
    "Build",
    "Component",
    "Cosine",
    "DevScores",
    "Embedder",
    "Encoded",
    "Examples",
    "Footprint",
    "Frame",
    "Hits",
    "IdentifiedEmbedder",
    "LoadEncoder",
    "Names",
    "PairScores",
    "RowFacts", "Rows",
    "SentenceModule",
    "Services",
    "Share",
    "Similarity",
    "Temperature",
    "TokenColumn",
    "Tokens",
    "Vectors",
    "View",
    "ViewContext",
    "Views",
    "Vocabulary",
]  # fmt: skip
