"""Makers: training data made out of what a user has; what ``sentemb data make`` names."""

from __future__ import annotations

from sentemb.data.makers.label_pairs import LabelPairs
from sentemb.data.makers.maker import MadeData, Maker, make_data

PARTS: dict[str, type[Maker]] = {"label_pairs": LabelPairs}

__all__ = ["PARTS", "LabelPairs", "MadeData", "Maker", "make_data"]
