"""Makers: training data made out of what a user has; what ``sentemb data make`` names."""

from __future__ import annotations

from sentemb.data.makers.chunks import Chunks
from sentemb.data.makers.clauses import Clauses
from sentemb.data.makers.code import Code
from sentemb.data.makers.label_pairs import LabelPairs
from sentemb.data.makers.lexicon import Lexicon
from sentemb.data.makers.logic import Logic
from sentemb.data.makers.maker import MadeData, Maker, make_data
from sentemb.data.makers.sentences import Sentences

PARTS: dict[str, type[Maker] | str] = {
    "chunks": Chunks, "clauses": Clauses, "code": Code, "filled": "sentemb.encoder.filled:Filled",  # needs a model
    "label_pairs": LabelPairs, "lexicon": Lexicon, "logic": Logic, "sentences": Sentences,
}  # fmt: skip

__all__ = [
    "PARTS", "Chunks", "Clauses", "Code", "LabelPairs", "Lexicon", "Logic", "MadeData", "Maker", "Sentences",
    "make_data",
]  # fmt: skip
