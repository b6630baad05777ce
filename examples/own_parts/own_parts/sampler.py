"""Hard negatives that the encoder in training finds itself, again and again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sentemb import Companion, VectorIndex, ViewCopy
from sentemb.companions.companion import find_companion
from sentemb.distributed import broadcast_object
from sentemb.parts import Count
from sentemb.search.vectors.choice import kind_of
from sentemb.types import Batch, Examples, SentenceModule, Services, View, ViewContext, Views


class Ance(Companion):
    """For every anchor, the nearest positives of other examples, found again every ``every`` batches:

        N_t(i) = the ``depth`` texts y ≠ y_i among all positives with the largest cos(f_s(x_i), f_s(y))
        f_s: the encoder as it was at the last search, s = every · ⌊t / every⌋

    Until the first search N(i) is the rows after i. The view copy ``ance`` draws from N.

    Args:
        every: batches between two searches.
        depth: neighbours kept of every anchor.
        kind: the index that is built of all positives at every search.

    Source: Xiong et al. 2021, ICLR, "Approximate nearest neighbor negative contrastive learning" (ANCE), section 3.
    Deviations: training waits for the search (ANCE's runs beside it, so its negatives are older).
    """

    def __init__(self, *, every: Count = 100, depth: Count = 16, kind: VectorIndex | None = None) -> None:
        super().__init__()
        self.every, self.depth, self.kind = every, depth, kind or kind_of("flat")
        self.neighbours: Tensor  # (rows, depth); a buffer, so that a resumed run has it
        self.register_buffer("neighbours", torch.empty(0, 0, dtype=torch.int64))

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Begin with other rows."""
        self.dataset, rows = dataset, len(dataset)
        after = torch.arange(1, min(self.depth, rows - 1) + 1)
        self.neighbours = (torch.arange(rows)[:, None] + after) % rows

    def after_step(self, batch: Batch, encoder: SentenceModule, services: Services) -> None:
        """Search with the encoder as it is now."""
        if (batch.step + 1) % self.every:
            return
        anchors, positives = (services.embed(encoder, self.dataset.columns[name]) for name in ("anchor", "positive"))
        index = self.kind.fresh()
        index.create(dimension=positives.shape[1], metric="cosine", rows=len(positives))
        if index.needs_training:
            index.train(positives, seed=batch.step)
        index.add(positives)
        width = self.neighbours.shape[1]
        rows = broadcast_object(index.search(anchors, width + 1)[1])  # threads may build another graph elsewhere
        text = self.dataset.columns["positive"].text
        is_own = (text[rows] == text[:, None]) | (rows < 0)
        order = np.argsort(is_own, axis=1, kind="stable")[:, :width]  # the others first, nearest first
        rows, is_own = (np.take_along_axis(values, order, axis=1) for values in (rows, is_own))
        self.neighbours = torch.from_numpy(np.where(is_own, rows[:, :1], rows))
        services.say(f"companion ance: mined again after batch {batch.step + 1}")


class AnceNegatives(ViewCopy):
    """A view ``negative_1``, drawn evenly from the companion ``ance``; the edit ``given`` puts it into the table."""

    needs = frozenset({"companion:ance"})
    makes = ("negative_1",)

    def __call__(self, views: Views, context: ViewContext) -> Views:
        """One neighbour of every anchor, as things stand after the last step."""
        ids = views["anchor"].ids
        companion = find_companion(context.companions, "ance", Ance, "views.copies: ance")
        neighbours = companion.neighbours.cpu().numpy()[ids]
        rows = neighbours[np.arange(len(ids)), context.generator.integers(neighbours.shape[1], size=len(ids))]
        column = context.dataset.columns["positive"].take(rows)
        return {"negative_1": View(column=column, ids=context.dataset.ids[rows])}
