"""Companions: what is stateful beside the encoder, one a file."""

from __future__ import annotations

from sentemb.companions.centre import Centre
from sentemb.companions.clusters import Clusters
from sentemb.companions.companion import Companion
from sentemb.companions.detector import Detector
from sentemb.companions.layers import Layers
from sentemb.companions.momentum import Momentum
from sentemb.companions.neighbours import Neighbours
from sentemb.companions.per_example import PerExample
from sentemb.companions.propensity import Propensity
from sentemb.companions.prototypes import Prototypes
from sentemb.companions.reference import Reference
from sentemb.companions.similar_words import SimilarWords

PARTS: dict[str, type[Companion]] = {
    "centre": Centre, "clusters": Clusters, "detector": Detector, "layers": Layers, "momentum": Momentum,
    "neighbours": Neighbours, "per_example": PerExample, "propensity": Propensity, "prototypes": Prototypes,
    "reference": Reference, "similar_words": SimilarWords,
}  # fmt: skip

__all__ = [
    "PARTS", "Centre", "Clusters", "Companion", "Detector", "Layers", "Momentum", "Neighbours", "PerExample",
    "Propensity", "Prototypes", "Reference", "SimilarWords",
]  # fmt: skip
