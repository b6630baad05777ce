"""Contrast of many views of an example."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import contrasted_names
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature
from sentemb.views.view import ViewNames

Kind = Literal["pairs", "arithmetic", "mean", "one_log", "dhel"]
Negatives = Literal["other", "all", "same"]


class MultiView(Term):
    """Contrast over V views of every example; reads the views, not the table.

    With unit embeddings u_ia of example i in view a,

        e(ia, jb) = exp(u_ia · u_jb / τ),   N_ia = Σ_{j ≠ i} Σ_{b ∈ B(a)} e(ia, jb)
        p_iab = e(ia, ib) / (e(ia, ib) + N_ia)

        pairs        -mean_{i, a, b ≠ a} log p_iab                        every pair of views is a positive
        arithmetic   -mean_{i, a} log mean_{b ≠ a} p_iab
        mean         as pairs, with the normalised mean of an example's other views as its one positive
        one_log      -mean_i log( Σ_{a ≠ b} e(ia, ib) / (Σ_{a ≠ b} e(ia, ib) + Σ_a N_ia) )     one softmax an example
        dhel         -mean_i log( Σ_{a < b} e(ia, ib) / Π_a N_ia )        attraction and repulsion decoupled

    B(a) are the views whose rows of other examples are negatives: all views but a (``other``), ``all``, or a itself
    (``same``). With two views, ``pairs`` over ``other`` is ``info_nce`` in both directions, over ``all`` it is NT-Xent.
    Holds V² n² similarities.

    Args:
        kind: see above.
        negatives: B. ``dhel`` is defined with ``same``.
        temperature: τ; 0.05 as in SimCSE; 0.5 in the paper of one_log and dhel, for CIFAR.
        of: the views; by default anchor, positive and every positive_2, …
    Returns: 0 for one example alone.
    Raises:
        RecipeError: fewer than two views.
    Source: pairs, arithmetic, mean: Shidani et al. 2024, ICLR, "Poly-View contrastive learning" (geometric, arithmetic,
        sufficient statistics); one_log, dhel: Koromilas et al. 2025, "A principled framework for multi-view
        contrastive learning" (MV-InfoNCE, MV-DHEL); pairs over all: Chen et al. 2020, ICML (NT-Xent).
    Deviations: MV-InfoNCE's readme leaves negatives of the same view out, its code (and ``all`` here) has them; the
        product of MV-DHEL is summed as logarithms.
    """

    def __init__(
        self, *, kind: Kind = "pairs", negatives: Negatives = "all", temperature: Temperature = 0.05,
        of: Annotated[ViewNames, MinLen(2)] | None = None,
    ) -> None:
        super().__init__()
        if kind == "dhel" and negatives != "same":
            raise ValueError(f'negatives = "{negatives}"; kind = "dhel" takes negatives = "same"')
        self.kind, self.negatives, self.temperature, self.of = kind, negatives, temperature, of
        self.needs = frozenset(f"view:{name}" for name in of or ())

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        names = self.of or contrasted_names(batch)
        if len(names) < 2:
            raise RecipeError(f"{self.name} contrasts views of an example; there is only {', '.join(names) or 'none'}")
        unit = F.normalize(at_least_float32(torch.stack([batch.views[name].embedding for name in names])), dim=-1)
        if unit.shape[1] == 1:
            return unit.sum() * 0.0
        positive, negative = self._logits(unit)
        if self.kind == "mean":
            others = F.normalize(unit.sum(dim=0) - unit, dim=-1)
            positive = ((unit * others).sum(dim=-1) / self.temperature)[:, None]
        return self._loss(positive, negative)

    def _logits(self, unit: Float[Tensor, "v n d"]) -> tuple[Float[Tensor, "v w n"], Float[Tensor, "v n"]]:
        """log e(ia, ib) for b ≠ a, (V, V - 1, n), and log N_ia, (V, n)."""
        v, n, _ = unit.shape
        with torch.autocast(device_type=unit.device.type, enabled=False):
            logits = torch.einsum("aid,bjd->abij", unit, unit) / self.temperature
        other = ~torch.eye(v, dtype=torch.bool, device=unit.device)
        positive = logits.diagonal(dim1=2, dim2=3)[other].view(v, v - 1, n)
        views = {"other": other, "all": torch.ones_like(other), "same": ~other}[self.negatives]
        own = torch.eye(n, dtype=torch.bool, device=unit.device)
        chosen = logits.masked_fill(own | ~views[:, :, None, None], -torch.inf)
        return positive, chosen.transpose(1, 2).flatten(2).logsumexp(dim=2)

    def _loss(self, positive: Float[Tensor, "v w n"], negative: Float[Tensor, "v n"]) -> Float[Tensor, ""]:
        if self.kind in ("one_log", "dhel"):
            together = positive.flatten(0, 1).logsumexp(dim=0)  # every pair of views, twice
            if self.kind == "dhel":
                return (negative.sum(dim=0) - together + math.log(2)).mean()
            return (torch.logaddexp(together, negative.logsumexp(dim=0)) - together).mean()
        log_p = positive - torch.logaddexp(positive, negative[:, None])
        if self.kind == "arithmetic":
            return (math.log(log_p.shape[1]) - log_p.logsumexp(dim=1)).mean()
        return -log_p.mean()
