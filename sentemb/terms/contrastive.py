"""Contrastive loss of pairs that belong together or not."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sentemb.errors import DataError
from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Positive
from sentemb.terms.cosent import graded_scores
from sentemb.terms.term import Term
from sentemb.types import Batch, Examples, PairScores, Services


class Contrastive(Term):
    """Pull the pairs of score 1 together, and push those of score 0 apart up to a margin.

        d_i = 1 - s_ii
        L = 1/(2n) Σ_i ( y_i d_i² + (1 - y_i) max(0, margin - d_i)² )

    s_ii is the similarity of anchor i and its own candidate, y_i their score: 1 (they belong together) or 0. The other
    candidates of the batch play no part, where ``info_nce`` takes them for negatives. ``online_contrastive`` takes the
    hard pairs alone.

    Args:
        margin: distance beyond which a pair of score 0 is left alone; 0.5 in sentence-transformers.
    Raises: DataError where a score is neither 0 nor 1, before training.
    Source: Hadsell, Chopra & LeCun 2006, CVPR, "Dimensionality reduction by learning an invariant mapping"; the
        distance as in sentence-transformers' ``ContrastiveLoss``.
    Deviations: the distance is 1 - cosine, Euclidean in the paper.
    """

    needs = frozenset({"scores"})

    def __init__(self, *, margin: Positive = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Refuse scores that are neither 0 nor 1."""
        for where, rows in self.sources_of(dataset).items():
            if rows.score is not None and (is_other := (rows.score != 0) & (rows.score != 1)).any():
                row = int(is_other.argmax())
                raise DataError(
                    f"term {self.name}: {where}row {row + 1} has the score {rows.score[row]:g}; scores must be 0 or 1. "
                    "For graded scores use cosent or cosine_error"
                )

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        distance, score = own_distances(table), graded_scores(self.name, batch)
        apart = (self.margin - distance).clamp(min=0)
        return (score * distance.square() + (1 - score) * apart.square()).mean() / 2


def own_distances(table: PairScores) -> Float[Tensor, " n"]:
    """1 - similarity of every anchor and its own candidate."""
    return 1 - at_least_float32(table.sim).diagonal()
