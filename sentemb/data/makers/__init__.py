"""Makers: training data made out of what a user has; what ``sentemb data make`` names."""

from __future__ import annotations

from sentemb.data.makers.chunks import Chunks
from sentemb.data.makers.code import Code
from sentemb.data.makers.label_pairs import LabelPairs
from sentemb.data.makers.lexicon import Lexicon
from sentemb.data.makers.logic import Logic
from sentemb.data.makers.maker import MadeData, Maker, make_data

PARTS: dict[str, type[Maker]] = {
    "chunks": Chunks, "code": Code, "label_pairs": LabelPairs, "lexicon": Lexicon, "logic": Logic,
}  # fmt: skip

__all__ = ["PARTS", "Chunks", "Code", "LabelPairs", "Lexicon", "Logic", "MadeData", "Maker", "make_data"]
