"""Classification of embeddings by prototypes: swapped between views, by the nearest one, or by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sentemb.companions.companion import find_companion
from sentemb.companions.prototypes import Prototypes, prototypes_in
from sentemb.errors import RecipeError
from sentemb.maths.clusters import sinkhorn
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import mean_over, positive_share
from sentemb.maths.table import contrasted_views
from sentemb.parts import Count, Positive
from sentemb.terms.term import Term
from sentemb.types import UNKNOWN, Batch, PairScores, Temperature

Target = Literal["swapped", "assigned", "label"]


class PrototypeSoftmax(Term):
    """Cross-entropy of the softmax over the K prototypes of the companion ``prototypes``.

    With unit embeddings u_ia of example i in view a (anchor, positive, positive_2, …) and unit prototypes C_k,

        p_k(u) ∝ exp( u · C_k / τ + log π_k )
        swapped    -mean_{i, a ≠ b} Σ_k q_k(u_ia) log p_k(u_ib),  q = Sinkhorn(exp(u · C / ε)) over batch and history
        assigned   -mean_{i, a ≠ b} log p_k(u_ib),  k the prototype nearest to u_ia
        label      -mean_i Σ_k y_ik log p_k(anchor i)

    The targets q, k and y are constants. Sinkhorn's rounds spread the rows over the prototypes equally, so that not all
    rows end at one. ``label`` reads the anchors of the table: y is their class, or where an edit divides attraction
    (``mixed``) the sum of the shares by the positives' class. Differs from ``info_nce`` in comparing with prototypes,
    not with other examples. Several clusterings of the companion are averaged.

    Args:
        target: see above.
        temperature: τ; 0.1 in SwAV.
        epsilon: ε of ``swapped``; 0.05 in SwAV. Smaller is nearer to one prototype a row.
        iterations: Sinkhorn's rounds; 3 in SwAV.
        prior: ``data`` adds log π_k, the share of group k in the data (logit adjustment: rare classes get larger
            margins); ``none`` adds nothing.
        companion: name of the companion that holds the prototypes.
    Returns: 0 where no class of the batch is known (``label``).
    Raises:
        RecipeError: one view only; rows without classes (``label``).
    Source: swapped: Caron et al. 2020, NeurIPS, "Unsupervised learning of visual features by contrasting cluster
        assignments" (SwAV). assigned: as the ProtoNCE term in the released code of "MEOW". label with a prior: the
        classifier in the released code of the long-tail mutual-information loss.
    Deviations: SwAV spreads every view by itself, here all views and the history together; Sinkhorn runs on logarithms,
        because exp(s / ε) overflows half precision. No density-scaled temperatures as in ProtoNCE.
    """

    def __init__(
        self, *, target: Target = "swapped", temperature: Temperature = 0.1, epsilon: Positive = 0.05,
        iterations: Count = 3, prior: Literal["none", "data"] = "none", companion: str = "prototypes",
    ) -> None:
        super().__init__()
        self.target, self.temperature, self.epsilon, self.iterations = target, temperature, epsilon, iterations
        self.prior, self.companion = prior, companion
        self.needs = frozenset({f"companion:{companion}"} | ({"labels"} if target == "label" else set()))

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Prototypes that its target cannot use."""
        known, train = prototypes_in(recipe.get("companions", ()), self.companion), recipe.get("train")
        if known is None:
            return []
        if self.target == "label" and known.count is not None:
            return [f'target = "label" needs one prototype a class: leave out count = {known.count}']
        if self.prior == "data" and not known.has_groups:
            return ['prior = "data" needs groups of the data: prototypes of classes, or update = "average"']
        if self.target != "swapped":
            return []
        if known.update == "average":
            return ['target = "swapped" needs prototypes that learn: update = "gradient"']
        rows = 2 * train.batch_size + known.history_size if train is not None else None
        if rows is not None and known.count is not None and known.count > rows:
            return [
                f"{rows} rows (two views of a batch and the history) cannot be spread over {known.count} prototypes; "
                "lower count, or raise train.batch_size"
            ]
        return []

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        known = find_companion(batch.companions, self.companion, Prototypes, self.name)
        centres = known.unit_centres(table.anchor.embedding.shape[1], batch.step)
        if self.target == "label":
            return self._labelled(table, known, centres)
        views = [F.normalize(at_least_float32(rows.embedding), dim=-1) for rows in contrasted_views(batch)]
        if len(views) < 2:
            raise RecipeError(f'{self.name}: target = "{self.target}" compares views of an example; there is only one')
        scores = _cosines(torch.cat(views), centres)  # (c, views · n, k)
        log_p = self._log_softmax(scores, known).unflatten(1, (len(views), -1))
        scores = scores.detach()
        if self.target == "swapped":
            target = self._spread(scores[0], known, centres.detach()).exp()[None]
        else:
            is_started = centres.detach().any(dim=-1)
            nearest = scores.masked_fill(~is_started[:, None], -torch.inf).argmax(dim=2)
            target = F.one_hot(nearest, scores.shape[2]).to(scores.dtype)
        target = target.unflatten(1, (len(views), -1))
        others = target.sum(dim=1, keepdim=True) - target
        # a product with log 0 of a prototype that nothing is assigned to would be NaN
        summands = torch.where(others > 0, others * log_p, 0.0)
        return -summands.sum(dim=-1).mean() / (len(views) - 1)

    def _log_softmax(self, scores: Float[Tensor, "c r k"], known: Prototypes) -> Float[Tensor, "c r k"]:
        logits = scores / self.temperature
        if self.prior == "data":
            logits = logits + known.log_prior[:, None].to(logits.dtype)
        if known.update == "average":  # centres without rows so far; with none at all every logit stays 0
            is_started = known.centres.any(dim=-1)
            logits = logits.masked_fill((~is_started & is_started.any(dim=-1, keepdim=True))[:, None], -torch.inf)
        return logits.log_softmax(dim=-1)

    def _spread(
        self, scores: Float[Tensor, "r k"], known: Prototypes, centres: Float[Tensor, "c k d"]
    ) -> Float[Tensor, "r k"]:
        earlier, width = known.earlier_rows().to(scores.dtype), centres.shape[2]
        if width < earlier.shape[1]:
            earlier = F.normalize(earlier[:, :width], dim=1)
        together = torch.cat([scores, _cosines(earlier, centres)[0]])
        return sinkhorn(together / self.epsilon, self.iterations)[: len(scores)]

    def _labelled(
        self, table: PairScores, known: Prototypes, centres: Float[Tensor, "c k d"]
    ) -> Float[Tensor, ""]:
        if table.anchor.label is None or table.candidate.label is None:
            raise RecipeError(f'{self.name}: target = "label", but the data have no label column')
        anchor = F.normalize(at_least_float32(table.anchor.embedding), dim=-1)
        log_p = self._log_softmax(_cosines(anchor, centres), known)[0]
        own = _classes(known, table.anchor.label)
        target = F.one_hot(own.clamp(min=0), log_p.shape[1]).to(log_p.dtype) * (own != UNKNOWN)[:, None]
        if table.share is not None:
            candidate = _classes(known, table.candidate.label)
            share = positive_share(table).to(log_p.dtype) * (candidate != UNKNOWN)
            by_class = torch.zeros_like(target).index_add(1, candidate.clamp(min=0), share)
            total = by_class.sum(dim=1, keepdim=True)
            target = torch.where(total > 0, by_class / total.clamp(min=1e-12), target)
        loss = -torch.where(target > 0, target * log_p, 0.0).sum(dim=1)
        return mean_over(loss, target.any(dim=1))


def _classes(known: Prototypes, label: Int[Tensor, " r"]) -> Int[Tensor, " r"]:
    """The class of every row; unknown where its centre, an average, has had no rows yet and others have."""
    own: Tensor = known.classes_of(label)
    if known.update != "average":
        return own
    is_started = known.centres[0].any(dim=-1)
    return torch.where(is_started[own.clamp(min=0)] | ~is_started.any(), own, UNKNOWN)


def _cosines(unit: Float[Tensor, "r d"], centres: Float[Tensor, "c k d"]) -> Float[Tensor, "c r k"]:
    with torch.autocast(device_type=unit.device.type, enabled=False):
        return unit @ centres.to(unit.dtype).transpose(1, 2)
