"""Companions: what is stateful beside the encoder, one a file."""

from __future__ import annotations

from sentemb.companions.companion import Companion
from sentemb.companions.detector import Detector
from sentemb.companions.momentum import Momentum
from sentemb.companions.neighbours import Neighbours
from sentemb.companions.propensity import Propensity
from sentemb.companions.reference import Reference

PARTS: dict[str, type[Companion]] = {
    "detector": Detector, "momentum": Momentum, "neighbours": Neighbours, "propensity": Propensity,
    "reference": Reference,
}  # fmt: skip

__all__ = ["PARTS", "Companion", "Detector", "Momentum", "Neighbours", "Propensity", "Reference"]
