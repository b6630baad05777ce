"""A pooling of what a masked-language model is about to write."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.encoder.poolings import Mean, Pooling
from sentemb.encoder.pretrained import load_masked_lm_head
from sentemb.errors import ModelError


class MaskedLMMean(Pooling):
    """Mean over tokens of the states behind the transform of the checkpoint's masked-language-model head:

        mean_t LayerNorm(GELU(W h_t + b))

    The vectors from which the head reads off words, one layer nearer to them than the last states. W, b and the norm
    start from the checkpoint, are trained with the encoder, and are saved with the model, which opens in sentemb.

    Raises: ModelError where the checkpoint has no trained masked-language-model head with GELU of the backbone's width.
    Source: "informative embeddings" of cMIM (as described: a decoder's hidden states, averaged), with the head of a
        masked-language model in the decoder's place.
    Deviations: unknown beyond that; the norm's ε is 1e-12 whatever the checkpoint's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mean = Mean()

    def bind(self, width: int, layers: int) -> int:
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        return width

    def start_from(self, folder: Path) -> None:
        """Take the head's layers from the checkpoint."""
        (dense, activation, norm, _), is_trained = load_masked_lm_head(folder, seed=0)
        is_gelu = "gelu" in type(activation).__name__.lower()
        if not is_trained or not is_gelu or dense.weight.shape != self.dense.weight.shape:
            raise ModelError(f"{folder}: the pooling masked_lm_mean needs a trained masked-language-model head with "
                             "GELU, as wide as the backbone; take the checkpoint as it was pre-trained, or another "
                             "pooling")
        self.dense.load_state_dict(dense.state_dict())
        self.norm.load_state_dict(norm.state_dict())

    def forward(self, hidden: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        states: Tensor = self.norm(F.gelu(self.dense(hidden)))
        pooled: Tensor = self._mean(states, mask)
        return pooled
