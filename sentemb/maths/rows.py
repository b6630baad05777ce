"""Rows that edits append to the table: unknown identity and class are -1."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sentemb.types import Rows

UNKNOWN = -1  # of ids, content hashes and labels; equal to nothing, not even to itself


def extra_rows(
    embedding: Float[Tensor, "k d"],
    like: Rows,
    *,
    ids: Int[Tensor, " k"] | None = None,
    text: Int[Tensor, " k"] | None = None,
) -> Rows:
    """Candidates of unknown class, and of unknown identity where it is not given.

    Args:
        embedding: what was encoded or made.
        like: the rows they will be appended to; labels are carried (as -1) only where these have labels, so that
            appending does not lose the others' classes.
        ids: example ids the texts come from.
        text: content hashes.
    """
    unknown = torch.full((embedding.shape[0],), UNKNOWN, dtype=torch.int64, device=embedding.device)
    return Rows(
        embedding=embedding,
        ids=unknown if ids is None else ids,
        text=unknown if text is None else text,
        label=None if like.label is None else unknown.to(like.label.dtype),
    )
