from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sentemb.data.tokens import concatenate, pad
from sentemb.types import TokenColumn


def column(rows: list[list[int]]) -> TokenColumn:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    return TokenColumn(flat=flat, offsets=offsets, text=np.arange(len(rows)))


ragged = st.lists(st.lists(st.integers(1, 99), max_size=6), min_size=1, max_size=8)


@given(ragged)
def test_pad_is_the_plain_loop(rows):
    padded = pad(column(rows), 7)
    width = max(1, max(map(len, rows)))
    assert padded.input_ids.tolist() == [row + [7] * (width - len(row)) for row in rows]
    assert padded.attention_mask.tolist() == [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    assert padded.targets is None


def test_targets_are_ignored_at_padding():
    padded = pad(column([[5, 6], [7]]), 0, np.array([-100, 8, 9], dtype=np.int32))
    assert padded.targets is not None
    assert padded.targets.tolist() == [[-100, 8], [9, -100]]


@given(ragged, ragged)
def test_concatenate_then_take_gives_the_rows_back(first, second):
    both = concatenate([column(first), column(second)])
    assert [both.flat[a:b].tolist() for a, b in zip(both.offsets[:-1], both.offsets[1:], strict=True)] == first + second


def test_a_slice_of_a_column_pads_like_its_own_rows():
    whole = column([[1], [2, 3], [4, 5, 6]])
    part = TokenColumn(
        flat=whole.flat, offsets=whole.offsets[1:], text=whole.text[1:]
    )  # offsets that do not start at 0
    assert pad(part, 0).input_ids.tolist() == [[2, 3, 0], [4, 5, 6]]
