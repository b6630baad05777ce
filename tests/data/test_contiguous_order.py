"""Batches of consecutive rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentemb.data.contiguous import Contiguous
from sentemb.data.orders import Batches
from sentemb.errors import DataError
from sentemb.training.settings import TrainSettings
from sentemb.types import Examples, TokenColumn


def examples(rows):
    flat, text = np.zeros(rows, dtype=np.int32), np.zeros(rows, dtype=np.int64)
    column = TokenColumn(flat=flat, offsets=np.arange(rows + 1), text=text)
    return Examples(ids=np.arange(rows), columns={"anchor": column})


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_batches_are_runs_and_no_row_comes_twice(rows, batch_size, epoch):
    order = Batches(examples(rows), Contiguous(), batch_size=batch_size, seed=1)
    batches = list(order.epoch(epoch))
    assert len(batches) == len(order) == max(rows // batch_size, 1)
    for batch in batches:
        assert len(batch) == min(batch_size, rows)
        assert (np.diff(batch) % rows == 1 % rows).all()  # the first row follows the last one
    dealt = np.concatenate(batches)
    assert len(np.unique(dealt)) == len(dealt) > rows - batch_size
    again = Batches(examples(rows), Contiguous(), batch_size=batch_size, seed=1)
    assert [batch.tolist() for batch in again.epoch(epoch)] == [batch.tolist() for batch in batches]


def test_epochs_are_cut_elsewhere_and_shuffled():
    order = Batches(examples(1000), Contiguous(), batch_size=10, seed=1)
    starts = [[int(batch[0]) for batch in order.epoch(epoch)] for epoch in range(20)]
    assert len({start[0] % 10 for start in starts}) > 4
    assert all((np.diff(start) % 1000 != 10).any() for start in starts)


def test_it_is_a_setting_of_train_and_needs_rows():
    assert isinstance(TrainSettings(batches="contiguous").batches, Contiguous)
    with pytest.raises(DataError, match="no batch"):
        Batches(examples(0), Contiguous(), batch_size=4, seed=0)
