"""From the rows behind the pooling, group by group, to those of the views: the last step left of the cache boundary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sentemb.maths.similarity import at_least_float32
from sentemb.training.inputs import LengthGroup, StepInput


def in_order(pooled: Sequence[Tensor], groups: Sequence[LengthGroup]) -> Float[Tensor, "r d"]:
    """The groups' pooled rows in the order of the views, one view after the other."""
    return torch.cat(list(pooled))[torch.argsort(torch.cat([group.rows for group in groups]))]


def in_views(rows: Float[Tensor, "r d"], inputs: StepInput) -> Float[Tensor, "b v d"]:
    """Rows that stand one view after the other, by example and view: the empty templates behind them are subtracted,
    and the fields of a view become its one row."""
    texts, examples = sum(map(len, inputs.shares)), inputs.local.stop - inputs.local.start
    own: Tensor = rows[: texts * examples]
    if inputs.minus is not None:
        own = own - F.pad(rows[texts * examples :], (0, 0, 0, 1))[inputs.minus]
    own = own.view(texts, examples, -1)
    if texts > len(inputs.shares):
        views = zip(own.split([len(shares) for shares in inputs.shares]), inputs.shares, strict=True)
        own = torch.stack([mean_of_fields(part, shares, unit=inputs.unit_fields) for part, shares in views])
    return own.transpose(0, 1)


def mean_of_fields(
    rows: Float[Tensor, "f b d"], shares: Float[Tensor, "f b"], *, unit: bool
) -> Float[Tensor, "b d"]:
    """The weighted mean of every example's fields, perhaps each at unit length; of one field its row as it is."""
    if len(shares) == 1:
        return rows[0]
    exact = at_least_float32(rows)
    if unit:
        exact = F.normalize(exact, dim=-1)
    return torch.einsum("fb,fbd->bd", shares.to(exact.dtype), exact).to(rows.dtype)
