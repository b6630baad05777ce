"""Similarities between two sets of embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.types import Similarity


def pairwise(
    anchor: Float[Tensor, "n d"], candidate: Float[Tensor, "m d"], similarity: Similarity
) -> Float[Tensor, "n m"]:
    """Every anchor with every candidate, in float32 or better (cosines in bfloat16 have only two digits)."""
    anchor, candidate = _for(similarity, anchor), _for(similarity, candidate)
    # autocast would take the product back to half precision
    with torch.autocast(device_type=anchor.device.type, enabled=False):
        return anchor @ candidate.T


def require_cosine(similarity: Similarity, part: str) -> None:
    """Refuse another similarity, for parts that are defined on the unit sphere; ``part`` opens the message."""
    if similarity != "cosine":
        raise RecipeError(f'{part}: works on the unit sphere; similarity = "{similarity}", allowed: cosine')


def paired(
    anchor: Float[Tensor, "n d"], other: Float[Tensor, "n d"], similarity: Similarity
) -> Float[Tensor, " n"]:
    """Every anchor with its own row of ``other``, in float32 or better."""
    return (_for(similarity, anchor) * _for(similarity, other)).sum(dim=-1)


def _for(similarity: Similarity, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows whose inner products are the similarities."""
    rows = at_least_float32(rows)
    return F.normalize(rows, dim=-1) if similarity == "cosine" else rows


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
