"""The backbone stays near its start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.errors import RecipeError
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, PairScores


class StayNear(Term):
    """Squared distance of the backbone's trained weights from those that training started with:

        L = Σ ‖θ - θ_start‖²

    Unlike weight decay, which pulls to 0, it keeps what pre-training learned. Beside a term that reads texts; costs a
    copy of the weights.

    Raises:
        RecipeError: no encoder was bound (a loop of one's own).
    Source: Kim, Yoo & Lee 2021, ACL, "Self-guided contrastive learning for BERT sentence representations" (SG-BERT),
        its regulariser in the released code.
    Deviations: weights that ``encoder.freeze`` holds are left out; they add 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self._weights: tuple[list[nn.Parameter]] | None = None  # in a tuple: not parameters of its own

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Weights that no device has whole, or none that move."""
        train, encoder = recipe.get("train"), recipe.get("encoder")
        faults = []
        if train is not None and train.shard:
            faults.append("compares whole weights; train.shard = true deals them to the devices: leave one of them out")
        if encoder is not None and encoder.freeze is True:
            faults.append("has nothing to hold: encoder.freeze = true keeps the backbone as it is")
        return faults

    def bind(self, build: Build) -> None:
        """Copy the weights that will be trained."""
        encoder: Any = build.encoder
        weights = [weight for weight in encoder.backbone.parameters() if weight.requires_grad]
        self._weights = (weights,)
        for place, weight in enumerate(weights):
            # made again when a run is resumed, which loads the same checkpoint first
            self.register_buffer(f"start_{place}", weight.detach().clone(), persistent=False)

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        if self._weights is None:
            raise RecipeError(f"{self.name} needs the encoder: it works in recipes, where bind() gives it")
        pairs = zip(self._weights[0], self.buffers(recurse=False), strict=True)
        return torch.stack([(weight - start).square().sum() for weight, start in pairs]).sum()
