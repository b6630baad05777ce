"""Scored pairs ranked by their angle in complex space."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.terms.cosent import graded_scores, ranked_as
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores, Temperature


class Angle(Term):
    """Rank pairs as ``cosent`` does, by a similarity that does not flatten where the cosine is near 1.

        u = (a, b), v = (c, d)    the unit embeddings of anchor i and its own positive in halves: a + ib, c + id
        g_i = | a·c + b·d + b·c - a·d |
        L = log( 1 + Σ_{i,k: y_i > y_k} exp((g_k - g_i) / τ) )

    a·c + b·d is the cosine, b·c - a·d the imaginary part of the complex inner product. y_i is the graded score of the
    pair. Meant beside ``cosent`` or ``info_nce``.

    Args:
        temperature: τ; 0.05 (a factor of 20) in sentence-transformers.
    Returns: 0 where all scores of the batch are equal.
    Raises: RecipeError where the embeddings have an odd number of dimensions.
    Source: Li & Li 2024, ACL, "AoE: Angle-optimized embeddings for semantic textual similarity" (AnglE), released code.
    Deviations: none. The method's other terms are ``cosent`` and ``info_nce``.
    """

    needs = frozenset({"scores"})

    def __init__(self, *, temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        n, width = table.anchor.embedding.shape
        if width % 2:
            raise RecipeError(f"{self.name} takes embeddings in two halves; {width} dimensions are an odd number")
        rows = (table.anchor.embedding, table.candidate.embedding[:n])
        u, v = (F.normalize(at_least_float32(embedding), dim=1) for embedding in rows)
        (a, b), (c, d) = u.chunk(2, dim=1), v.chunk(2, dim=1)
        value = (a * (c - d) + b * (c + d)).sum(dim=1).abs()
        return ranked_as(graded_scores(self.name, batch), value / self.temperature)
