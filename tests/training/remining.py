"""What a stranger adds in one file: negatives that are mined again while training (ANCE)."""

from __future__ import annotations

from typing import Any

import torch

from sentemb.companions.companion import Companion
from sentemb.types import Batch, Examples, SentenceModule, Services, TokenColumn, View
from sentemb.views.view import ViewCopy

MINING: dict[str, Any] = {
    "companions": [{"use": "remining:Remining", "name": "remining"}],
    "views": {"use": "columns", "copies": [{"use": "remining:Nearest"}]},
}


class Remining(Companion):
    """What one file of a stranger's can do: find every text's nearest other text again while training.

    Args:
        every: steps between two searches.
    """

    def __init__(self, *, every: int = 2) -> None:
        super().__init__()
        self.every = every
        self.register_buffer("neighbour", torch.empty(0, dtype=torch.int64))
        self.register_buffer("searches", torch.zeros((), dtype=torch.int64))
        self.neighbour: torch.Tensor
        self.searches: torch.Tensor
        self.column: TokenColumn | None = None

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Nothing is near yet."""
        self.column = dataset.columns["positive"]
        self.neighbour = torch.arange(len(self.column)).roll(1)

    def after_step(self, batch: Batch, encoder: SentenceModule, services: Services) -> None:
        """Search with the encoder as it is now."""
        if (batch.step + 1) % self.every == 0:
            assert self.column is not None
            rows, _ = services.nearest(services.embed(encoder, self.column), 1)
            self.neighbour = torch.from_numpy(rows[:, 0])
            self.searches += 1


class Nearest(ViewCopy):
    """A view copy that takes the neighbour as it is at the step."""

    needs = frozenset({"companion:remining"})
    makes = ("negative_3",)

    def __call__(self, views: Any, context: Any) -> Any:
        """Views ``negative_3``."""
        rows = context.companions["remining"].neighbour.numpy()[views["anchor"].ids]
        return {"negative_3": View(column=context.dataset.columns["positive"].take(rows), ids=rows)}
