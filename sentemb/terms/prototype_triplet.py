"""Hinge between the own class's mean and the nearest other one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.softmax import mean_over
from sentemb.parts import Positive
from sentemb.terms.term import Term
from sentemb.types import UNKNOWN, Batch, PairScores


class PrototypeTriplet(Term):
    """Every anchor lies nearer to its class's mean than to any other class's, by a margin:

        c_y = normalised mean of the table's candidates of class y,   d_iy = ‖u_i - c_y‖² = 2 - 2 u_i · c_y
        L = mean_i max( 0, margin + d_{i, y_i} - min_{y ≠ y_i} d_iy )

    An anchor's own positive is left out of its class's mean, as a query is not in its support set, unless the class
    has no other candidate in the batch. Batches need several rows of a class: ``train.batches = "grouped"``. Differs
    from ``triplet`` in comparing with means, from the term ``prototypes`` in keeping nothing from batch to batch.

    Args:
        margin: in squared distance; 0.5 in the paper's code.
    Returns: anchors of unknown class are not counted; 0 where the batch has one class.
    Raises:
        RecipeError: the data have no classes.
    Source: "SuSana Distancia" (few-shot learning; its released code), prototype triplet.
    Deviations: distances on the unit sphere; support and queries are the two views of a batch, not different examples;
        log-weights of the table are not read.
    """

    needs = frozenset({"labels"})

    def __init__(self, *, margin: Positive = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        if table.anchor.label is None or table.candidate.label is None:
            raise RecipeError(f"{self.name}: the data have no label column")
        n, label = len(table.anchor), table.anchor.label
        anchor = F.normalize(at_least_float32(table.anchor.embedding), dim=1)
        support = F.normalize(at_least_float32(table.candidate.embedding), dim=1)
        classes, number = table.candidate.label.unique(return_inverse=True)
        own = F.one_hot(number, len(classes)).to(support.dtype)
        with torch.autocast(device_type=anchor.device.type, enabled=False):
            sums = own.T @ support
            similarity = anchor @ F.normalize(sums, dim=1).T
        is_own = label[:, None] == classes
        # an anchor's own positive is column i of the table
        has_others = (own.sum(dim=0)[number[:n]] > 1) & (table.candidate.label[:n] == label)
        without = sums[number[:n]] - has_others[:, None] * support[:n]
        own_similarity = (anchor * F.normalize(without, dim=1)).sum(dim=1)
        other = similarity.masked_fill(is_own | (classes == UNKNOWN), -torch.inf).amax(dim=1)
        is_counted = (label != UNKNOWN) & is_own.any(dim=1) & other.isfinite()
        hinge = (self.margin - 2 * own_similarity + 2 * torch.where(is_counted, other, 0.0)).clamp(min=0)
        return mean_over(hinge, is_counted)
