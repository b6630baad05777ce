"""Distillation: the table's rows follow those of another encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sentemb.companions.momentum import faults_of_keys, teacher_similarity
from sentemb.maths.softmax import live_pairs, masked_log_softmax, mean_over, table_logits
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class Distill(Term):
    """Divergence of an anchor's distribution over its candidates from that of a teacher.

        p_i = softmax_j(s_ij / τ + w_ij),  q_i = softmax_j(r_ij / τ_r)
        L = 1/n Σ_i Σ_j q_ij log(q_ij / p_ij)

    over the candidates that the teacher knows and no edit has removed; r are the cosines of a companion: a frozen
    ``reference``, or a ``momentum`` encoder, which is the learner's own average (self-distillation). Unlike
    ``info_nce`` it has soft labels: candidates near the anchor in the teacher are not pushed away. With the weight a
    beside ``info_nce`` with 1 - a at one τ, it is cross-entropy with the targets (1 - a) · one-hot + a · q.

    Args:
        temperature: τ of the encoder that learns.
        reference_temperature: τ_r of the teacher; a smaller one makes sharper labels.
        companion: name of the companion that teaches: a ``reference``, or a ``momentum`` with ``keys = true``.
    Returns: anchors with fewer than two known candidates are not counted, and a batch without any other gives 0.
    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2; over rows of similarities: Fang et al. 2021,
        ICLR (SEED), section 3; by the average: Li et al. 2021, NeurIPS, "Align before fuse" (ALBEF).
    Deviations: candidates are the table's, where SEED has a queue (add the edit ``queue`` and a ``momentum`` companion
        or a precomputed reference for it). ALBEF's teacher takes the learned temperature of its student.
    """

    def __init__(
        self, *, temperature: Temperature = 0.05, reference_temperature: Temperature = 0.05,
        companion: str = "reference",
    ) -> None:
        super().__init__()
        self.temperature, self.reference_temperature, self.companion = temperature, reference_temperature, companion
        self.needs = frozenset({f"companion:{companion}"})

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """A momentum encoder that makes no keys."""
        return faults_of_keys(recipe, self.companion)

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        cosine, is_known = teacher_similarity(table, batch, self.companion, self.name)
        shared = live_pairs(table) & is_known
        log_p = masked_log_softmax(table_logits(table, self.temperature), shared)
        log_q = masked_log_softmax(cosine.detach().to(log_p.dtype) / self.reference_temperature, shared)
        divergence = (log_q.exp() * (log_q - log_p) * shared).sum(dim=1)
        return mean_over(divergence, shared.sum(dim=1) > 1)
