"""What every layer of the start checkpoint makes of the texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sentemb.companions.frozen_encoder import FrozenEncoder
from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Whole
from sentemb.types import Build, Tokens


class Layers(FrozenEncoder):
    """A second encoder, never trained, in evaluation mode, whose layers are pooled one by one:

        g_k = mean over the text's tokens of the states of layer k

    Layer 0 is the embedding layer. Unlike ``reference``, it gives no sentence embedding: the term ``self_guided`` sends
    all layers through the trained heads.

    Args:
        model: path, ``package:…`` or hub id of the frozen encoder, whose tokenizer and width must be those of the
            trained one; without it, the checkpoint from which the training starts.
        first: the first layer; 0 takes all of them.
    Returns:
        ``observe``: the anchors' pooled layers (b, layers, d) as ``NAME/anchor``.
    Raises:
        RecipeError: a first layer that the encoder does not have.
    Source: Kim, Yoo & Lee 2021, ACL, "Self-guided contrastive learning for BERT sentence representations"
        (SG-BERT), its released code.
    Deviations: the frozen copy has no dropout; in the release it has, because the whole model is put into training
        mode.
    """

    needs = frozenset({"tokens"})

    def __init__(self, *, model: str | None = None, first: Whole = 0) -> None:
        super().__init__(model=model)
        self.first = first

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Sharded weights, with which transformers gives no states of layers."""
        train = recipe.get("train")
        if train is None or not train.shard:
            return []
        return ["reads the states of all layers, which sharded backbones do not give; leave out train.shard = true"]

    def bind(self, build: Build) -> None:
        """Load the encoder; the first layer must be one of its."""
        super().bind(build)
        layers = self._backbone.config.num_hidden_layers
        if self.first > layers:
            raise RecipeError(f"companion {self.name}: first = {self.first}, but the layers are 0 to {layers}")

    @torch.no_grad()
    def observe(self, tokens: Mapping[str, Tokens], views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The layers of this device's anchors."""
        anchor, backbone = tokens["anchor"], self._backbone
        states = backbone(
            input_ids=anchor.input_ids, attention_mask=anchor.attention_mask, return_dict=True,
            output_hidden_states=True,
        ).hidden_states
        mask = anchor.attention_mask[..., None]
        pooled = [(at_least_float32(layer) * mask).sum(dim=1) / mask.sum(dim=1) for layer in states[self.first :]]
        return {"anchor": torch.stack(pooled, dim=1)}

    @property
    def _backbone(self) -> Any:
        encoder: Any = self.encoder
        return encoder.backbone
