"""Batches of groups: what they hold, who is left out, and that texts do not recur."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sentemb.data.grouped import Grouped, most_batches
from sentemb.data.orders import Batches
from sentemb.errors import DataError
from sentemb.parts import PartError
from sentemb.training.settings import TrainSettings
from sentemb.types import Examples, TokenColumn


def examples(labels: list[int], texts: list[int] | None = None) -> Examples:
    """Rows of these classes; texts are all different unless given."""
    rows = len(labels)
    column = TokenColumn(
        flat=np.zeros(rows, dtype=np.int32), offsets=np.arange(rows + 1),
        text=np.arange(rows) if texts is None else np.array(texts),
    )
    return Examples(ids=np.arange(rows), columns={"anchor": column}, label=np.array(labels, dtype=np.int64))


def dealt(data: Examples, *, groups: int, batch_size: int, seed: int = 0, epoch: int = 0) -> list[np.ndarray]:
    return list(Batches(data, Grouped(groups=groups), batch_size=batch_size, seed=seed).epoch(epoch))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 6), st.integers(1, 9), st.integers(0, 3)
)
def test_batches_hold_what_they_promise(sizes, groups, share, epoch):
    assume(len(sizes) >= groups)
    labels = np.repeat(np.arange(len(sizes)) * 7, sizes)
    data = examples(np.random.default_rng(0).permutation(labels).tolist())
    batch_size = groups * share
    order = Batches(data, Grouped(groups=groups), batch_size=batch_size, seed=3)
    batches = list(order.epoch(epoch))
    assert len(batches) == len(order)
    rows = np.concatenate(batches)
    assert len(np.unique(rows)) == len(rows)
    used = np.zeros(len(sizes), dtype=int)  # pieces of every group
    for batch in batches:
        names, counts = np.unique(data.label[batch], return_counts=True)
        assert len(names) == groups
        for name, count in zip(names, counts, strict=True):
            size = sizes[name // 7]
            pieces = -(-size // share)
            assert count in (size // pieces, -(-size // pieces))  # equal pieces of at most the share
            used[name // 7] += 1
    pieces = np.array([-(-size // share) for size in sizes])
    # no batch more would have been possible, and what is missing is less than a batch or beyond a piece a batch
    assert np.minimum(pieces, len(batches) + 1).sum() < groups * (len(batches) + 1)
    missing = np.minimum(pieces, len(batches)) - used
    assert (missing >= 0).all()
    assert missing.sum() < groups


def test_an_epoch_covers_all_rows_of_equal_groups():
    batches = dealt(examples([i % 8 for i in range(128)]), groups=4, batch_size=16)
    assert sorted(np.concatenate(batches)) == list(range(128))
    assert [len(batch) for batch in batches] == [16] * 8


def test_one_group_a_batch():
    labels = [0] * 10 + [1] * 3 + [2] * 7
    batches = dealt(examples(labels), groups=1, batch_size=4)
    assert sorted(np.concatenate(batches)) == list(range(20))
    assert sorted(len(batch) for batch in batches) == [3, 3, 3, 3, 4, 4]  # 10 in 3 pieces, 3 in 1, 7 in 2


def test_batch_size_groups_differ_in_all_rows_and_all_groups_are_any_order():
    data = examples([i % 10 for i in range(60)])
    for batch in dealt(data, groups=6, batch_size=6):
        assert len(set(data.label[batch])) == 6
    batches = dealt(data, groups=10, batch_size=20)
    assert sorted(np.concatenate(batches)) == list(range(60))


def test_a_group_that_is_too_large_leaves_out_other_rows_in_every_epoch():
    data = examples([0] * 90 + [1] * 5 + [2] * 5)
    left_out = [set(range(100)) - set(np.concatenate(dealt(data, groups=2, batch_size=4, epoch=e))) for e in range(6)]
    assert all(len(rows) == 90 - 12 and max(rows) < 90 for rows in left_out)  # 6 batches of 2 rows of group 0
    assert len(set.intersection(*left_out)) < 60


def test_every_pair_of_groups_meets_and_meets_equally_often():
    data = examples([i % 6 for i in range(72)])
    meetings = np.zeros((6, 6))
    for epoch in range(200):
        for batch in dealt(data, groups=2, batch_size=8, epoch=epoch):
            one, other = sorted(set(data.label[batch]))
            meetings[one, other] += 1
    counts = meetings[np.triu_indices(6, 1)]
    assert counts.sum() == 200 * 9
    assert counts.min() > 0.6 * counts.mean()


def test_seed_and_epoch_alone_decide_and_an_epoch_can_start_in_the_middle():
    data = examples([i % 5 for i in range(100)], [i // 2 for i in range(100)])
    order = Batches(data, Grouped(groups=2), batch_size=8, seed=5)
    whole = [batch.tolist() for batch in order.epoch(2)]
    again = Batches(data, Grouped(groups=2), batch_size=8, seed=5)
    for start in range(len(whole) + 1):
        assert [batch.tolist() for batch in again.epoch(2, start=start)] == whole[start:]
    assert whole != [batch.tolist() for batch in order.epoch(1)]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_no_text_recurs_and_groups_stay_whole(groups):
    labels = [i % 4 for i in range(400)]
    texts = [i // 8 * 4 + i % 4 if i < 80 else i for i in range(400)]  # pairs of one class and text among the first
    data = examples(labels, texts)
    for batch in dealt(data, groups=groups, batch_size=8):
        assert len(set(data.label[batch])) == groups
        own = data.columns["anchor"].text[batch]
        assert len(set(own)) == len(own)


def test_a_text_of_two_classes_does_not_recur_either():
    data = examples([i % 2 for i in range(40)], [i // 2 if i < 8 else i for i in range(40)])
    for batch in dealt(data, groups=2, batch_size=4):
        own = data.columns["anchor"].text[batch]
        assert len(set(own)) == len(own)


def test_most_batches_is_the_most():
    generator = np.random.default_rng(0)
    for _ in range(200):
        pieces, groups = generator.integers(1, 9, generator.integers(3, 9)), int(generator.integers(1, 4))
        possible = [b for b in range(pieces.sum() + 1) if np.minimum(pieces, b).sum() >= groups * b]
        assert most_batches(pieces, groups) == max(possible)


# ------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (examples([0, 1, 1, 0]), "groups = 3, but the data have 2"),
        (examples([0, 1, 2, -1]), "1 of 4 rows have no known group"),
        (Examples(ids=np.arange(2), columns=examples([0, 1]).columns), "needs the column label"),
        (examples([0, 1, 2] * 20, [0] * 30 + list(range(100, 130))), "texts recur"),
    ],
)
def test_refuses_data_that_make_no_such_batches(data, words):
    with pytest.raises(DataError, match=words):
        Batches(data, Grouped(groups=3), batch_size=6, seed=0)


def test_refuses_more_groups_than_rows_in_a_batch():
    with pytest.raises(PartError, match="groups = 16 is above batch_size = 8"):
        TrainSettings(batch_size=8, batches=Grouped(groups=16))
    with pytest.raises(PartError, match="groups"):
        Grouped(groups=0)
