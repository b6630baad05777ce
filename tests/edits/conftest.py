"""Small score tables for the edits' tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from sentemb.maths.table import in_batch_table
from sentemb.types import Batch, PairScores, Rows

MakeRows = Callable[..., Rows]


@pytest.fixture
def make_rows() -> MakeRows:
    """``make_rows(n, d, seed=0, first=0)``: random rows with ids ``first…`` and distinct content hashes."""

    def make(
        n: int, d: int = 4, *, seed: int = 0, first: int = 0, dtype: torch.dtype = torch.float64, ids: object = None,
        text: object = None, label: object = None,
    ) -> Rows:
        embedding = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
        own = torch.arange(first, first + n) if ids is None else torch.tensor(ids)
        return Rows(
            embedding=embedding,
            ids=own,
            text=own + 1000 if text is None else torch.tensor(text),
            label=None if label is None else torch.tensor(label),
        )

    return make


@pytest.fixture
def make_table(make_rows: MakeRows) -> Callable[..., PairScores]:
    """``make_table(n, d, …)``: the in-batch table of random anchors and positives that are the same examples."""

    def make(n: int, d: int = 4, *, seed: int = 0, dtype: torch.dtype = torch.float64, **known: object) -> PairScores:
        return in_batch_table(make_rows(n, d, seed=seed, dtype=dtype, **known),
                           make_rows(n, d, seed=seed + 1, dtype=dtype, **known))

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """``make_batch(views, …)``: a batch of one device."""

    def make(views: Mapping[str, Rows] | None = None, **fields: object) -> Batch:
        views = dict(views or {})
        n = len(next(iter(views.values()))) if views else 0
        return Batch(views=views, local=slice(0, n), tokens={}, encoded={}, **fields)  # type: ignore[arg-type]

    return make
