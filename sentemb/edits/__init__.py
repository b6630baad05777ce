"""Table edits: negative samplers add columns, debiasing adds to ``log_weight``, labels set ``positive``."""

from __future__ import annotations

from sentemb.edits.attraction import Attraction
from sentemb.edits.cluster_negatives import ClusterNegatives
from sentemb.edits.composed import Composed
from sentemb.edits.edit import Edit
from sentemb.edits.false_negative import FalseNegative
from sentemb.edits.given import Given
from sentemb.edits.groups import GroupWeights
from sentemb.edits.hardness import Hardness
from sentemb.edits.inner_layer import InnerLayer
from sentemb.edits.margin import Margin
from sentemb.edits.mined import Mined
from sentemb.edits.mixed import Mixed
from sentemb.edits.mixed_hard_pair import MixedHardPair
from sentemb.edits.mixed_ordered import MixedOrdered
from sentemb.edits.mixed_partners import MixedPartners
from sentemb.edits.moved import Moved
from sentemb.edits.nearest import Nearest
from sentemb.edits.neighbours_in_text import NeighboursInText
from sentemb.edits.noise import Noise
from sentemb.edits.propensity import PropensityWeights
from sentemb.edits.queue import Queue
from sentemb.edits.regulators import Regulators
from sentemb.edits.same_label import SameLabel
from sentemb.edits.soften import Soften
from sentemb.edits.temperature import RowTemperature

PARTS: dict[str, type[Edit]] = {
    "attraction": Attraction,
    "composed": Composed,
    "cluster_negatives": ClusterNegatives,
    "false_negative": FalseNegative,
    "given": Given,
    "groups": GroupWeights,
    "hardness": Hardness,
    "inner_layer": InnerLayer,
    "margin": Margin,
    "mined": Mined,
    "mixed": Mixed,
    "mixed_hard_pair": MixedHardPair,
    "mixed_ordered": MixedOrdered,
    "mixed_partners": MixedPartners,
    "moved": Moved,
    "nearest": Nearest,
    "neighbours_in_text": NeighboursInText,
    "noise": Noise,
    "propensity": PropensityWeights,
    "queue": Queue,
    "regulators": Regulators,
    "same_label": SameLabel,
    "soften": Soften,
    "temperature": RowTemperature,
}

__all__ = [
    "PARTS", "Attraction", "ClusterNegatives", "Composed", "Edit", "FalseNegative", "Given", "GroupWeights",
    "Hardness", "InnerLayer", "Margin", "Mined", "Mixed", "MixedHardPair", "MixedOrdered", "MixedPartners", "Moved",
    "Nearest", "NeighboursInText", "Noise", "PropensityWeights", "Queue", "Regulators", "RowTemperature",
    "SameLabel", "Soften",
]  # fmt: skip
