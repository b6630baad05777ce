"""How hard and how safe mined negatives are, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sentemb.mining.miner import MinedBlock

NEAR = 0.025  # cosine below the positive's within which a negative may well be a positive


@dataclass(frozen=True, kw_only=True)
class MiningReport:
    """Figures of mined negatives. Similarities are cosines to the anchor.

    Attributes:
        anchors: anchors that were looked at.
        mined: anchors that have enough negatives.
        negatives: of each of those.
        positive_similarity: mean over anchors, of the least similar positive.
        negative_similarity: mean over negatives.
        hardest_similarity: mean over anchors, of the most similar negative.
        false_negatives: share of negatives within 0.025 of the positive's similarity or above it; an estimate of how
            many are positives that nobody marked.
        refused: share of the candidates that rules refused.
    """

    anchors: int
    mined: int
    negatives: int
    positive_similarity: float
    negative_similarity: float
    hardest_similarity: float
    false_negatives: float
    refused: float


def report_of(blocks: Iterable[MinedBlock], negatives: int) -> MiningReport:
    """The figures of all blocks; means are NaN where nothing was mined."""
    sums = np.zeros(8)
    for block in blocks:
        near = block.similarity > block.positive[:, None] - NEAR
        sums += [block.considered, len(block.positive), block.positive.sum(dtype=np.float64),
                 block.similarity.sum(dtype=np.float64), block.similarity.max(axis=1).sum(dtype=np.float64),
                 near.sum(), block.proposed, block.refused]
    anchors, mined, positive, negative, hardest, near_total, proposed, refused = sums.tolist()
    count = mined or float("nan")
    return MiningReport(
        anchors=int(anchors), mined=int(mined), negatives=negatives, positive_similarity=positive / count,
        negative_similarity=negative / (count * negatives), hardest_similarity=hardest / count,
        false_negatives=near_total / (count * negatives), refused=refused / max(proposed, 1),
    )
