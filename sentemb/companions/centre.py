"""Where the embeddings lay on average when training began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sentemb.companions.companion import Companion
from sentemb.types import UNKNOWN, Build, Examples, SentenceModule, Services

ROWS = 20_000


class Centre(Companion):
    """Mean unit embedding of the training texts by the encoder as training starts, fixed from then on:

        c = mean_x f_start(x) / ‖f_start(x)‖

    The edit ``moved`` subtracts it. Untuned encoders put all sentences into a narrow cone around c.

    Args:
        column: of the data, whose texts are averaged.
    Source: Reiss & Hoshen 2023, AAAI, "Mean-shifted contrastive loss for anomaly detection", section 3.
    Deviations: of data with more than 20,000 rows, evenly spaced ones are averaged.
    """

    def __init__(self, *, column: str = "anchor") -> None:
        super().__init__()
        self.column = column
        self.needs = frozenset({f"view:{column}"})
        self.vector: Float[Tensor, " d"]

    def bind(self, build: Build) -> None:
        """Remember the encoder that training starts with."""
        self._encoder: tuple[SentenceModule] = (build.encoder,)  # not a module of its own
        self.register_buffer("vector", torch.zeros(build.width))

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Average the texts' embeddings."""
        column = dataset.columns[self.column]
        known = np.flatnonzero(column.text != UNKNOWN)
        rows = known[np.unique(np.linspace(0, len(known) - 1, min(len(known), ROWS)).astype(np.int64))]
        services.say(f"{self.name}: encoding {len(rows):,} texts")
        mean = services.embed(self._encoder[0], column.take(rows)).mean(axis=0, dtype=np.float64)
        self.vector = torch.from_numpy(mean.astype(np.float32)).to(self.vector.device)

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Heads behind which the embeddings are others than those averaged."""
        encoder = recipe.get("encoder")
        if encoder is None or not any(head.train_only for head in encoder.heads):
            return []
        return ["averages exported embeddings, but encoder.heads trains behind one that is not exported (train_only)"]
