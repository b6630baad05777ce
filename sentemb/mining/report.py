"""How good a mined set is, before anything is trained on it: ECI (in a form of our own) and the figures behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class MiningReport:
    """Figures of a mined set. Similarities are cosines to the anchor."""

    anchors: int
    kept: int  # anchors with enough negatives
    negatives: int  # per anchor
    positive_similarity: float  # mean, of the least positive
    negative_similarity: float  # mean
    hardest_similarity: float  # mean of each anchor's hardest negative
    hardness: float
    safety: float
    false_negative_rate: float
    efficiency: float
    capacity: float
    eci: float
    refused: float  # share of looked-at candidates that the rules refused
    eci_form: Literal["sentemb"] = "sentemb"  # whose normalisations ECI has; see ``ReportBuilder.report``


class ReportBuilder:
    """Collects blocks of mined scores; see ``report`` for the formulas."""

    def __init__(self, *, safe_margin: float = 0.05) -> None:
        self.safe_margin = safe_margin
        self._positive: list[Scores] = []
        self._negative: list[Scores] = []
        self._considered = self._refused = self._looked_at = 0

    def add(self, positive: Scores, negative: Scores, *, considered: int, refused: int, looked_at: int) -> None:
        """One block: positive (n,), negative (n, k)."""
        self._positive.append(positive.astype(np.float32))
        self._negative.append(negative.astype(np.float32))
        self._considered += considered
        self._refused += refused
        self._looked_at += looked_at

    def report(self) -> MiningReport:
        """The figures.

        With s⁺ the anchor's (least) positive similarity, s⁻ a negative's, margin m = 0.05 and k negatives per anchor
        over n anchors:

        * hardness H = mean of clip(s⁻ / s⁺, 0, 1): 1 where a negative is as near as the positive;
        * safety S = mean over anchors of clip((s⁺ - max s⁻) / m, 0, 1): the hardest negative of each anchor counts,
          because one false negative spoils a softmax; 1 where all are farther than m from the positive;
        * estimated false-negative rate = share of negatives with s⁻ > s⁺ - m / 2;
        * efficiency E = 2·H·S / (H + S): harmonic, so that neither side can stand in for the other;
        * capacity C = ln(1 + n·k);
        * ECI = C · E.

        Source: Sinha, Seetharaman & Bansal 2026, "ECI: Effective Contrastive Information to Evaluate Hard-Negatives",
        arXiv:2603.20990v1, abstract: the trade-off of information capacity (the logarithmic bound on mutual
        information that the set's size gives) and discriminative efficiency (the harmonic balance of signal
        magnitude, i.e. hardness, and max-margin safety).
        Deviations: only that abstract was at hand, none of its equations. Ours are therefore that the trade-off is a
        product; that hardness is divided by the positive's similarity and safety by a margin of 0.05, both clipped to
        0 … 1; that means are taken over the whole set before the harmonic mean; and that the size counts all negatives
        of the set. Values rank sets that sentemb mined with one encoder; they are not those of the paper. Its third
        version (June 2026) replaces the figure by another, from a log-determinant of residuals, which is not this one.
        """
        if not self._positive or not sum(map(len, self._positive)):
            none = math.nan
            return MiningReport(
                self._considered, 0, 0, none, none, none, none, none, none, 0.0, 0.0, 0.0, self._share()
            )
        positive, negative = np.concatenate(self._positive), np.concatenate(self._negative)
        hardest = negative.max(axis=1)
        floor = np.maximum(positive, 1e-6)
        hardness = float(np.clip(negative / floor[:, None], 0, 1).mean())
        safety = float(np.clip((positive - hardest) / self.safe_margin, 0, 1).mean())
        efficiency = 2 * hardness * safety / (hardness + safety) if hardness + safety > 0 else 0.0
        capacity = math.log1p(negative.size)
        return MiningReport(
            anchors=self._considered, kept=len(positive), negatives=negative.shape[1],
            positive_similarity=float(positive.mean()), negative_similarity=float(negative.mean()),
            hardest_similarity=float(hardest.mean()), hardness=hardness, safety=safety,
            false_negative_rate=float((negative > positive[:, None] - self.safe_margin / 2).mean()),
            efficiency=efficiency, capacity=capacity, eci=capacity * efficiency, refused=self._share(),
        )

    def _share(self) -> float:
        return self._refused / max(self._looked_at, 1)
