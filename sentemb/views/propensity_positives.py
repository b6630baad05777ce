"""Another sentence as the positive: one that means the same, not only one that looks the same."""

from __future__ import annotations

from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from sentemb.errors import RecipeError
from sentemb.maths.propensity import Candidates
from sentemb.parts import Fraction, Positive
from sentemb.types import Examples, View, ViewContext, Views
from sentemb.views.view import ViewMaker


@runtime_checkable
class CandidateSource(Protocol):
    """What this view needs of the companion ``propensity``."""

    positive_threshold: float

    def candidates(self, text: NDArray[np.int64]) -> Candidates: ...

    def rows(self, text: NDArray[np.int64]) -> NDArray[np.int64]: ...


class PropensityPositives(ViewMaker):
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
        companion: name of the companion that knows the candidates.

    Returns: ``anchor`` and ``positive``; the positive's ids are those of the sentence drawn.
    Raises: RecipeError without the companion.
    Source: Miao, Du & Zhang 2023, CIKM, "DebCSE"; weights: Rosenbaum & Rubin 1983, Biometrika.
    Deviations: no code is public; the formula, the clipping and the share of twins are ours.
    """

    columns = frozenset({"anchor"})

    def __init__(
        self, *, temperature: Positive = 0.1, twin_share: Fraction = 0.5, clip: Annotated[float, Ge(1)] = 3.0,
        companion: str = "propensity",
    ) -> None:
        self.temperature, self.twin_share, self.clip, self.companion = temperature, twin_share, clip, companion
        self.needs = frozenset({f"companion:{companion}"})

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """``anchor`` and ``positive``."""
        source: object = context.companions.get(self.companion)
        if not isinstance(source, CandidateSource):
            raise RecipeError(f'views: propensity_positives needs a companion "{self.companion}" of use = "propensity"')
        anchor = examples.columns["anchor"]
        candidates = source.candidates(anchor.text)
        logits = self.logits(candidates, source.positive_threshold)
        # Gumbel-max: one draw of the categorical distribution in every row
        choice = np.argmax(logits + context.generator.gumbel(size=logits.shape), axis=1)
        drawn = candidates.row[np.arange(len(choice)), choice]
        keeps_twin = context.generator.random(len(choice)) < self.twin_share
        keeps_twin |= ~np.isfinite(logits).any(axis=1)
        row = np.where(keeps_twin, source.rows(anchor.text), drawn)
        column = context.dataset.columns["anchor"].take(row)
        ids = np.where(keeps_twin, examples.ids, context.dataset.ids[row])
        return {"anchor": View(column=anchor, ids=examples.ids), "positive": View(column=column, ids=ids)}

    def logits(self, candidates: Candidates, threshold: float) -> NDArray[np.float64]:
        """``log P`` up to a constant of the row, (n, c); -inf where a candidate does not qualify."""
        weight = np.minimum(-candidates.log_propensity.astype(np.float64), np.log(self.clip))
        qualifies = (candidates.sem >= threshold) & candidates.is_known[:, None]
        return np.where(qualifies, candidates.sem / self.temperature + weight, -np.inf)
