"""Neighbours from earlier batches as further views of an example."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from sentemb.companions.companion import find_companion
from sentemb.companions.momentum import Momentum
from sentemb.edits.edit import Edit
from sentemb.maths.similarity import at_least_float32, pairwise
from sentemb.maths.table import add_candidates, extra_rows, take_rows, with_anchors, with_candidates
from sentemb.parts import Count, Whole
from sentemb.types import UNKNOWN, Batch, Cosine, PairScores, Rows


class Nearest(Edit):
    """Put the nearest texts of the momentum encoder's queue into the table, without gradient:

        N(i) = the ``count`` filled slots with the largest cosine to v_i

    v_i is the example's embedding in the view ``of``. Slots of the same example, or with the text of its anchor or
    positive, are left out. By ``place``:

        anchor      anchor i becomes its neighbour, so only candidates are trained (NNCLR)
        candidate   candidate i becomes it, so only anchors are trained (DeCLIP)
        extra       n · count further columns, positives of their own anchor and hidden from the others (BECLR)

    A row keeps what it has before step ``start``, and where no slot is admissible or alike enough. A replaced row bears
    the neighbour's example id and text, so that ``false_negative``, listed after this edit, knows what it is.

    Args:
        place: see above.
        count: neighbours of each example; more than one only with ``extra``.
        of: the view that is compared with the queue, which should hold texts of its kind (``momentum``'s ``of``).
        threshold: cosine that a neighbour must have; any by default.
        start: steps before the first neighbours are taken: those of an untuned encoder look alike, and mean little.
        companion: name of the companion that holds the queue.
    Returns:
        The table with other anchors, other candidates, or ``n · count`` more columns.
    Raises:
        ValueError: several neighbours in one place.
    Source: anchor: Dwibedi et al. 2021, ICCV, "With a little help from my friends" (NNCLR). candidate: Li et al. 2022,
        ICLR, "Supervision exists everywhere" (DeCLIP). extra: Poulakakis-Daktylidis & Jamali-Rad 2024, ICLR, "BECLR".
    Deviations: own example and text are left out, which matters from the second epoch on; ``threshold`` and ``start``
        are ours. BECLR has memory rows on both sides of the pairs it adds, which send no gradient; here one side is
        the trained anchor.
    """

    def __init__(
        self, *, place: Literal["anchor", "candidate", "extra"], count: Count = 1,
        of: Literal["anchor", "positive"] = "positive", threshold: Cosine | None = None,
        start: Whole = 0, companion: str = "momentum",
    ) -> None:
        super().__init__()
        if count > 1 and place != "extra":
            raise ValueError(f'count = {count}: only place = "extra" has room for several neighbours')
        self.place, self.count, self.of, self.threshold = place, count, of, threshold
        self.start, self.companion = start, companion
        self.needs = frozenset({f"companion:{companion}"})

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        momentum = find_companion(batch.companions, self.companion, Momentum, self.name)
        if batch.step < self.start:
            return table
        slot, is_near = self._slots(momentum, batch)
        if self.place == "extra":
            return _with_columns(table, momentum, slot, is_near)
        if self.place == "anchor":
            return with_anchors(table, _replaced(table.anchor, momentum, slot[:, 0], is_near[:, 0]))
        in_batch = take_rows(table.candidate, slice(len(table.anchor)))
        return with_candidates(table, _replaced(in_batch, momentum, slot[:, 0], is_near[:, 0]))

    @torch.no_grad()
    def _slots(self, momentum: Momentum, batch: Batch) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"]]:
        """The nearest slots of every example, best first, and which of them are admissible."""
        anchor, positive = batch.views["anchor"], batch.views["positive"]
        own = F.normalize(at_least_float32(batch.views[self.of].embedding), dim=-1)
        queue = momentum.embedding.to(own.dtype)
        # the queue is large: its lengths are divided by afterwards, so that it need not be copied
        cosine = pairwise(own, queue, "dot").div_(torch.linalg.vector_norm(queue, dim=1).clamp(min=1e-12))
        is_own = (anchor.ids[:, None] == momentum.ids) & (anchor.ids != UNKNOWN)[:, None]
        for view in (anchor, positive):
            is_own |= (view.text[:, None] == momentum.text) & (view.text != UNKNOWN)[:, None]
        cosine.masked_fill_(is_own | ~momentum.is_filled, -torch.inf)
        best, slot = cosine.topk(min(self.count, cosine.shape[1]), dim=1)
        return slot, best > -torch.inf if self.threshold is None else best >= self.threshold


def _replaced(rows: Rows, momentum: Momentum, slot: Int[Tensor, " n"], is_near: Bool[Tensor, " n"]) -> Rows:
    """The rows, their neighbours in the place of those that have one; a neighbour's class is unknown."""
    return Rows(
        embedding=torch.where(is_near[:, None], momentum.embedding[slot].to(rows.embedding.dtype), rows.embedding),
        ids=torch.where(is_near, momentum.ids[slot], rows.ids),
        text=torch.where(is_near, momentum.text[slot], rows.text),
        label=None if rows.label is None else rows.label.masked_fill(is_near, UNKNOWN),
    )


def _with_columns(
    table: PairScores, momentum: Momentum, slot: Int[Tensor, "n k"], is_near: Bool[Tensor, "n k"]
) -> PairScores:
    """The table with the first neighbours of all rows as columns, then the second ones, …"""
    n, count = slot.shape
    slots = slot.T.reshape(-1)
    rows = extra_rows(momentum.embedding[slots], table.candidate, ids=momentum.ids[slots], text=momentum.text[slots])
    own = torch.eye(n, dtype=torch.bool, device=slot.device).repeat(1, count) & is_near.T.reshape(-1)
    log_weight = torch.zeros_like(own, dtype=table.log_weight.dtype).masked_fill(~own, -torch.inf)
    return add_candidates(table, rows, positive=own, log_weight=log_weight)
