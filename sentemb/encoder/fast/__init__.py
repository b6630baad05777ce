"""Lean forward passes for the usual families: packed rows, joined and reordered weights, no masks.

``build`` gives one or says why not; the plain path takes over where it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from sentemb.encoder.fast.families import FAMILIES, kind_of
from sentemb.encoder.fast.graphs import GraphedEncoder
from sentemb.encoder.fast.packed import Packed, pack
from sentemb.encoder.fast.post_norm import PostNormEncoder
from sentemb.encoder.fast.pre_norm import ModernBertEncoder
from sentemb.encoder.fast.unsupported import Unsupported


class FastEncoder(Protocol):
    """Packed rows to hidden states (tokens, d): the last, or the embeddings' and every layer's.

    Attributes:
        is_shape_only: on a GPU in half precision, what is launched depends on the numbers of tokens and rows and the
            longest row alone, so that a CUDA graph can repeat it.
        home: where packed rows are expected.
    """

    is_shape_only: bool
    home: torch.device

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]: ...


_MAKERS: dict[str, Callable[[nn.Module, torch.dtype], FastEncoder]] = {
    **dict.fromkeys(FAMILIES, PostNormEncoder), "modernbert": ModernBertEncoder,
}


def build(backbone: nn.Module, dtype: torch.dtype) -> FastEncoder:
    """The lean form of a backbone, with its own copy of the weights.

    Raises:
        Unsupported: the architecture, or something in it, is not known here.
    """
    kind = kind_of(backbone, "transformers.models.", "sentemb.encoder.skeleton")
    if kind not in _MAKERS:
        raise Unsupported(f"architecture {kind}")
    try:
        return _MAKERS[kind](backbone, dtype)
    except AttributeError as error:  # another release of transformers names a layer differently
        raise Unsupported(str(error)) from error


__all__ = ["FastEncoder", "GraphedEncoder", "Packed", "PostNormEncoder", "Unsupported", "build", "pack"]
