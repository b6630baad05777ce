"""Another sentence as the positive: one that means the same, not only one that looks the same."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import RecipeError
from sentemb.maths.propensity import Candidates
from sentemb.types import Examples, View, ViewContext, Views


@runtime_checkable
class CandidateSource(Protocol):
    """What this view needs of the companion ``propensity``."""

    positive_threshold: float

    def candidates(self, text: NDArray[np.int64]) -> Candidates: ...

    def rows(self, text: NDArray[np.int64]) -> NDArray[np.int64]: ...


class PropensityPositives:
    """Anchor: the sentence. Positive: a candidate drawn with inverse propensity, or the sentence itself:

        P(j | i) ∝ 1[sem_ij ≥ θ⁺] · exp(sem_ij / τ_s) / max(e⁺(sur_ij), 1/clip)

    A share of the examples (drawn anew each step) keeps its dropout twin, and so does every example without a
    qualifying candidate. e⁺, the chance that the plain rule picks a pair of that surface similarity, is the
    companion's; dividing by it stops look-alikes from dominating. Differs from ``twice`` in the drawn positives.

    Args:
        temperature: τ_s; small values prefer the nearest candidate.
        twin_share: share of the examples that keep their dropout twin whatever their candidates.
        clip: largest weight 1/e⁺. Small by default: candidates that look unlike and are near only by a weak reference
            are often its mistakes.

    Returns: ``anchor`` and ``positive``; the positive's ids are those of the sentence drawn.
    Raises: ValueError for values out of range; RecipeError without the companion.
    Source: Miao, Du & Zhang 2023, CIKM, "DebCSE"; weights: Rosenbaum & Rubin 1983, Biometrika.
    Deviations: no code is public; the formula, the clipping and the share of twins are ours.
    """

    columns = frozenset({"anchor"})
    needs = frozenset({"companion:propensity"})

    def __init__(self, *, temperature: float = 0.1, twin_share: float = 0.5, clip: float = 3.0) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature = {temperature}; must be above 0")
        if not 0 <= twin_share <= 1:
            raise ValueError(f"twin_share = {twin_share}; must be from 0 to 1")
        if not clip >= 1:
            raise ValueError(f"clip = {clip}; must be at least 1")
        self.temperature, self.twin_share, self.clip = temperature, twin_share, clip

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """``anchor`` and ``positive``."""
        source: object = context.companions.get("propensity")
        if not isinstance(source, CandidateSource):
            raise RecipeError(
                '[views] use = "propensity_positives": there is no companion "propensity"; add [[companions]] '
                'use = "propensity"'
            )
        anchor = examples.columns["anchor"]
        found = source.candidates(anchor.text)
        logits = self.logits(found, source.positive_threshold)
        # Gumbel-max: one draw of the categorical distribution in every row
        place = np.argmax(logits + context.generator.gumbel(size=logits.shape), axis=1)
        drawn = found.row[np.arange(len(place)), place]
        keeps_twin = context.generator.random(len(place)) < self.twin_share
        keeps_twin |= ~np.isfinite(logits).any(axis=1)
        row = np.where(keeps_twin, source.rows(anchor.text), drawn)
        column = context.dataset.columns["anchor"].take(row)
        ids = np.where(keeps_twin, examples.ids, context.dataset.ids[row])
        return {"anchor": View(anchor, examples.ids), "positive": View(column, ids)}

    def logits(self, found: Candidates, threshold: float) -> NDArray[np.float64]:
        """``log P`` up to a constant of the row, (n, c); -inf where a candidate does not qualify."""
        weight = np.minimum(-found.log_propensity.astype(np.float64), np.log(self.clip))
        qualifies = (found.sem >= threshold) & found.is_known[:, None]
        return np.where(qualifies, found.sem / self.temperature + weight, -np.inf)
