"""Examples and contexts for the view makers' tests."""

from __future__ import annotations

import numpy as np
import pytest

from sentemb.types import Examples, TokenColumn, ViewContext, Vocabulary


@pytest.fixture
def column_of():
    """``column_of([[2, 7, 3], …])``"""

    def make(token_rows: list[list[int]], first_text: int = 0) -> TokenColumn:
        offsets = np.cumsum([0, *(len(row) for row in token_rows)]).astype(np.int64)
        flat = np.array([token for row in token_rows for token in row], dtype=np.int32)
        return TokenColumn(
            flat=flat, offsets=offsets, text=np.arange(first_text, first_text + len(token_rows), dtype=np.int64)
        )

    return make


@pytest.fixture
def examples_of(column_of):
    """``examples_of(anchor=[[…]], positive=[[…]])``"""

    def make(**columns: list[list[int]]) -> Examples:
        made = {name: column_of(token_rows) for name, token_rows in columns.items()}
        count = len(next(iter(made.values()))) if made else 0
        return Examples(ids=np.arange(50, 50 + count, dtype=np.int64), columns=made)

    return make


@pytest.fixture
def context_of():
    """``context_of(examples, seed=0, mask=4)``: vocabulary of 30, specials 0 [PAD], 2 [CLS], 3 [SEP]."""

    def make(examples: Examples, seed: int = 0, mask: int | None = 4) -> ViewContext:
        vocabulary = Vocabulary(size=30, pad=0, mask=mask, special=frozenset({0, 2, 3}))
        return ViewContext(
            generator=np.random.default_rng(seed), dataset=examples, vocabulary=vocabulary, companions={}
        )

    return make
