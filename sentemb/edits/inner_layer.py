"""Texts are compared with what a lower layer makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sentemb.edits.edit import Edit
from sentemb.encoder.heads import refuse_coupling
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import with_candidates
from sentemb.parts import Whole
from sentemb.types import Batch, Build, PairScores, SentenceModule


class InnerLayer(Edit):
    """Put a lower layer's vectors of a view's texts in the place of the in-batch candidates:

        candidate_i = heads(pool(states of layer k of text i))

    from the pass that the view takes anyway, so that the contrast of two layers costs no encoding. Pooling and heads
    are the recipe's own, and the gradient reaches both layers. With ``moved`` behind it, noise on both, and
    ``info_nce`` it is XSimGCL's contrast. The lean training forward steps aside.

    Args:
        layer: k; 0 is the embedding layer.
        of: the view; with ``anchor``, an anchor's positive is the anchor itself, k layers deep.
    Returns:
        The table with other candidates in columns 0…n-1; log-weights, positives and further columns stay.
    Raises:
        RecipeError: (when built) the backbone has no such layer, a pooling reads all layers, a head couples rows, or
            another edit takes another layer.
    Source: Yu et al. 2024, TKDE, "XSimGCL: Towards extremely simple graph contrastive learning for recommendation"
        (its cross-layer contrast), released code.
    Deviations: layers of a text encoder in place of those of a graph; the heads stand behind both.
    """

    needs = frozenset({"inner"})

    def __init__(self, *, layer: Whole = 3, of: str = "anchor") -> None:
        super().__init__()
        self.layer, self.of = layer, of
        self.needs = frozenset({"inner", f"view:{of}"})

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Sharded weights, with which transformers gives no states of layers."""
        train = recipe.get("train")
        if train is None or not train.shard:
            return []
        return ["reads the states of a layer, which sharded backbones do not give; leave out train.shard = true"]

    def bind(self, build: Build) -> None:
        """Have the layer pooled, and remember the encoder's heads."""
        refuse_coupling(build.encoder, f"edits: {self.name} sends rows of its own")
        build.encoder.also_pool(self.layer, self.name)
        self._encoder: tuple[SentenceModule] = (build.encoder,)  # not a module of its own

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        embedding = at_least_float32(self._encoder[0].project(batch.inner[self.of]))
        return with_candidates(table, replace(batch.views[self.of], embedding=embedding))
