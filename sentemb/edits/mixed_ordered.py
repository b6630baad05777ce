"""Mixtures of texts whose labels have an order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sentemb.edits.edit import Edit
from sentemb.edits.mixed_partners import beta_draws
from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import add_candidates, extra_rows
from sentemb.parts import Count, Positive
from sentemb.types import UNKNOWN, Batch, PairScores


class MixedOrdered(Edit):
    """Append, for every anchor i with the ordinal label y_i, ``count`` mixtures of each of two kinds:

        hard negatives  λ u_i + (1 - λ) u_k,   y_k ≠ y_i,   λ ~ Beta(2, 8)
        hard positives  a u_j + (1 - a) u_k,   y_j < y_i < y_k, both within the window,   a = (y_k - y_i) / (y_k - y_j)

    of unit length and without gradient. The mixed label of a hard positive is exactly y_i; a hard negative has the
    log-weight log(d + 1) for the distance d = (1 - λ) |y_k - y_i| of its mixed label. Mixtures belong to their
    anchor alone (-inf for the others). With ``groups`` (rule = distance) for the real negatives this is SupReMix; the
    term is ``supervised_contrast``. Only for texts that have an ordinal label themselves, such as ratings: a similarity
    score belongs to a pair.

    Args:
        count: mixtures of each kind and anchor; partners are drawn among the in-batch candidates.
        window: largest distance of y_j and y_k from y_i; 5 (years of age) in the paper.
        concentration: parameters of the Beta distribution of λ.
    Returns:
        The table with 2 n count more columns. An anchor that has no such partner gets removed columns.
    Raises:
        RecipeError: the rows have no labels, or the similarity is not the cosine.
    Source: Wu et al. 2023, "Mixup your own pairs: supervised contrastive learning for regression with mixup"
        (SupReMix).
    Deviations: ``count`` mixtures are drawn, where the release holds n³ at once; real and mixed logits share one
        softmax, where the release shifts each by its own maximum first.
    """

    needs = frozenset({"cosine", "labels"})

    def __init__(
        self, *, count: Count = 8, window: Positive = 5.0, concentration: tuple[Positive, Positive] = (2.0, 8.0)
    ) -> None:
        super().__init__()
        self.count, self.window, self.concentration = count, window, concentration

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        label = table.anchor.label
        if label is None:
            raise RecipeError(f"edit {self.name}: the data have no label column; add one, or drop the edit")
        n = len(table.anchor)
        known = label != UNKNOWN
        y = label.to(torch.float32)
        step = y[None, :] - y[:, None]  # of candidate k over anchor i
        near = known[:, None] & known[None, :]
        anchor, candidate = (
            F.normalize(at_least_float32(rows.embedding.detach()), dim=1)
            for rows in (table.anchor, table.candidate)
        )
        other, has_other = self._draw(near & (step != 0), batch.generator)
        own = beta_draws(n * self.count, self.concentration[0], batch.generator, self.concentration[1])
        own = own.view(n, self.count).to(step)
        table = self._add(
            table, own[..., None] * anchor[:, None] + (1 - own[..., None]) * candidate[other], has_other,
            weight=((1 - own) * step.gather(1, other).abs() + 1).log(), is_positive=False,
        )
        inside = near & (step.abs() <= self.window)
        lower, has_lower = self._draw(inside & (step < 0), batch.generator)
        upper, has_upper = self._draw(inside & (step > 0), batch.generator)
        below, above = -step.gather(1, lower), step.gather(1, upper)
        possible = has_lower & has_upper
        part = torch.where(possible[:, None], above / (below + above).clamp(min=1e-12), 1.0)[..., None]
        mixture = part * candidate[lower] + (1 - part) * candidate[upper]
        return self._add(table, mixture, possible, weight=torch.zeros_like(own), is_positive=True)

    def _draw(
        self, allowed: Bool[Tensor, "n n"], generator: torch.Generator | None
    ) -> tuple[Tensor, Bool[Tensor, " n"]]:
        """``count`` allowed columns of every row with replacement, (n, count), and which rows allow any."""
        none = ~allowed.any(dim=1)
        weight = (allowed | none[:, None]).to("cpu", torch.float32)
        drawn = torch.multinomial(weight, self.count, replacement=True, generator=generator)
        return drawn.to(allowed.device), ~none

    def _add(
        self, table: PairScores, mixture: Float[Tensor, "n s d"], possible: Bool[Tensor, " n"], *,
        weight: Float[Tensor, "n s"], is_positive: bool,
    ) -> PairScores:
        """Append every anchor's mixtures, n·s columns, which are removed for the other anchors."""
        n, s, _ = mixture.shape
        rows = F.normalize(mixture, dim=2).flatten(0, 1).to(table.candidate.embedding.dtype)
        own = torch.eye(n, dtype=torch.bool, device=possible.device) & possible[:, None]
        own = own.repeat_interleave(s, dim=1)
        weight = torch.where(own, weight.reshape(1, -1), -torch.inf)
        return add_candidates(
            table, extra_rows(rows, table.candidate), positive=own & is_positive, log_weight=weight
        )
