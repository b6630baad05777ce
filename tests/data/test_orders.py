from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentemb.data import repeated_texts
from sentemb.data.orders import Batches, BatchOrder, ByLength, NoDuplicates, Shuffled
from sentemb.errors import DataError
from sentemb.parts import room
from sentemb.types import Examples, TokenColumn


def examples(*texts: list[int], lengths: list[int] | None = None) -> Examples:
    """Columns with the given text hashes."""
    rows = len(texts[0])
    sizes = np.array(lengths if lengths is not None else [1] * rows, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    flat = np.zeros(int(offsets[-1]), dtype=np.int32)
    columns = {
        f"column_{i}": TokenColumn(flat=flat, offsets=offsets, text=np.array(text)) for i, text in enumerate(texts)
    }
    return Examples(ids=np.arange(rows), columns=columns)


def texts_recur(data: Examples, batch: np.ndarray) -> bool:
    """The plain loop: does a text of one example of the batch occur in another one?"""
    seen: set[int] = set()
    for row in batch:
        own = {int(column.text[row]) for column in data.columns.values()}
        if own & seen:
            return True
        seen |= own
    return False


def epochs(batches: Batches, count: int = 1) -> list[list[list[int]]]:
    return [[batch.tolist() for batch in batches.epoch(epoch)] for epoch in range(count)]


# -------------------------------------------------------------------------------------------- what holds
@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 60).flatmap(
        lambda rows: st.lists(
            st.lists(st.integers(0, 40), min_size=rows, max_size=rows), min_size=1, max_size=3
        )
    ),
    st.integers(1, 12),
    st.integers(0, 3),
    st.sampled_from([NoDuplicates(), ByLength(window=2), ByLength(window=5)]),
)
def test_batches_hold_what_they_promise(texts, batch_size, seed, order):
    data = examples(*texts, lengths=[1 + text % 7 for text in texts[0]])
    try:
        batches = Batches(data, order, batch_size=batch_size, seed=seed)
        given_batches = list(batches.epoch(1))
    except DataError:
        most = max(np.bincount(np.concatenate([np.unique(row) for row in np.array(texts).T])))
        # refused only for a reason: texts that recur in a good part of the batches
        assert most > max(len(data) // batch_size, 1) / 4
        return
    assert len(given_batches) == len(batches)
    rows = np.concatenate(given_batches)
    assert len(np.unique(rows)) == len(rows)
    assert all(len(batch) <= batch_size for batch in given_batches)
    assert not any(texts_recur(data, batch) for batch in given_batches)
    if max(np.bincount(np.array(texts).ravel())) == 1:
        assert len(rows) == (len(data) // batch_size * batch_size or len(data))


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 5), st.sampled_from([NoDuplicates(), Shuffled()]))
def test_without_recurring_texts_batches_are_full(rows, batch_size, epoch, order):
    batches = Batches(examples(list(range(rows))), order, batch_size=batch_size, seed=3)
    sizes = [len(batch) for batch in batches.epoch(epoch)]
    assert len(np.unique(np.concatenate(list(batches.epoch(epoch))))) == sum(sizes)
    assert sizes == ([batch_size] * (rows // batch_size) or [rows])
    assert len(batches) == len(sizes)
    assert batches.smallest == min(sizes)


def test_premises_with_three_hypotheses_each_lose_no_row():
    rows = np.arange(30_000)
    rng = np.random.default_rng(0)
    data = examples((rows // 3).tolist(), (10**6 + rng.integers(0, 12_000, 30_000)).tolist())
    batches = Batches(data, NoDuplicates(), batch_size=125, seed=0)
    given_batches = list(batches.epoch(0))
    assert sorted(np.concatenate(given_batches)) == rows.tolist()
    assert not any(texts_recur(data, batch) for batch in given_batches)
    assert len(batches) == 240


def test_class_names_as_positives_make_more_and_smaller_batches():
    names = [10**6 + i % 20 for i in range(1000)]  # every name in 50 rows
    data = examples(list(range(1000)), names)
    batches = Batches(data, NoDuplicates(), batch_size=32, seed=0)
    sizes = [len(batch) for batch in batches.epoch(0)]
    assert len(batches) == len(sizes) == 50
    assert set(sizes) == {20}
    assert not any(texts_recur(data, batch) for batch in batches.epoch(0))


def test_two_columns_of_frequent_texts_still_lose_no_row():
    rng = np.random.default_rng(0)
    data = examples(rng.integers(0, 100, 10_000).tolist(), (1000 + rng.integers(0, 100, 10_000)).tolist())
    given_batches = list(Batches(data, NoDuplicates(), batch_size=50, seed=1).epoch(0))
    assert sum(map(len, given_batches)) == 10_000
    assert not any(texts_recur(data, batch) for batch in given_batches)


def test_an_example_whose_columns_are_equal_is_no_conflict():
    data = examples([1, 2, 3, 4], [1, 2, 3, 4])
    assert [len(batch) for batch in Batches(data, NoDuplicates(), batch_size=4, seed=0).epoch(0)] == [4]


def test_the_same_text_in_another_column_is_a_conflict():
    data = examples([1, 2, 3, 4], [2, 1, 4, 3])
    for batch in Batches(data, NoDuplicates(), batch_size=2, seed=0).epoch(0):
        assert set(batch.tolist()) not in ({0, 1}, {2, 3})


def test_duplicates_stay_together_where_they_are_allowed():
    data = examples([5] * 8)
    batches = Batches(data, Shuffled(), batch_size=4, seed=0)
    assert [len(batch) for batch in batches.epoch(0)] == [4, 4]


# ------------------------------------------------------------------------------------------ order, resume
def test_seed_and_epoch_alone_decide():
    data = examples([i // 2 for i in range(100)])
    first = epochs(Batches(data, NoDuplicates(), batch_size=8, seed=5), 3)
    assert first == epochs(Batches(data, NoDuplicates(), batch_size=8, seed=5), 3)
    assert first[0] != first[1]
    assert first != epochs(Batches(data, NoDuplicates(), batch_size=8, seed=6), 3)


@pytest.mark.parametrize("order", [NoDuplicates(), ByLength(window=4), Shuffled()], ids=repr)
def test_an_epoch_can_start_in_the_middle(order):
    data = examples([i // 2 for i in range(100)], lengths=[1 + i % 9 for i in range(100)])
    whole = [batch.tolist() for batch in Batches(data, order, batch_size=8, seed=5).epoch(2)]
    resumed = Batches(data, order, batch_size=8, seed=5)
    for start in range(len(whole) + 1):
        assert [batch.tolist() for batch in resumed.epoch(2, start=start)] == whole[start:]


def test_the_order_is_shuffled_uniformly_enough():
    # with recurring texts rows are dealt, not cut: every row must still meet every batch place equally often
    data = examples([i // 3 for i in range(30)])
    batches = Batches(data, NoDuplicates(), batch_size=10, seed=0)
    counts = np.zeros((30, 3))
    for epoch in range(600):
        for place, batch in enumerate(batches.epoch(epoch)):
            counts[batch, place] += 1
    assert np.abs(counts / 600 - 1 / 3).max() < 0.1  # five standard deviations


def test_other_rows_are_dropped_in_every_epoch():
    batches = Batches(examples(list(range(10))), NoDuplicates(), batch_size=4, seed=0)
    assert len(batches) == 2
    dropped = {tuple(sorted(set(range(10)) - set(np.concatenate(list(batches.epoch(e)))))) for e in range(5)}
    assert all(len(rows) == 2 for rows in dropped)
    assert len(dropped) > 1


# -------------------------------------------------------------------------------------------- by length
def test_batches_by_length_save_padding_and_keeps_every_row():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, 2000)
    data = examples(list(range(2000)), lengths=lengths.tolist())

    def padded(order: BatchOrder) -> int:
        given_batches = list(Batches(data, order, batch_size=20, seed=0).epoch(0))
        assert sorted(np.concatenate(given_batches)) == list(range(2000))
        return sum(len(batch) * int(lengths[batch].max()) for batch in given_batches)

    assert padded(NoDuplicates()) > 1.7 * lengths.sum()
    assert padded(ByLength(window=25)) < 1.1 * lengths.sum()


# ------------------------------------------------------------------------------------------- one's own
class Halves(BatchOrder):
    """Two batches, whatever the batch size."""

    def dealer(self, examples, *, batch_size):
        return lambda generator: np.array_split(generator.permutation(len(examples)), 2)


def test_an_order_of_ones_own():
    order = room("batches").make({"use": f"{__name__}:Halves"})
    batches = Batches(examples(list(range(9))), order, batch_size=3, seed=0)
    assert [len(batch) for batch in batches.epoch(1)] == [5, 4]
    assert batches.smallest == 4


# ---------------------------------------------------------------------------------------------- refusals
def test_no_rows():
    with pytest.raises(DataError, match="of 0 rows"):
        Batches(examples([]), Shuffled(), batch_size=4, seed=0)


def test_a_text_in_every_row_is_refused():
    with pytest.raises(DataError, match=r'one text occurs in 100 of 100 rows.*train.batches = "shuffled"'):
        Batches(examples([7] * 100, list(range(100, 200))), NoDuplicates(), batch_size=10, seed=0)


def test_repeated_texts_are_found_block_by_block(monkeypatch):
    draw = np.random.default_rng(5)
    hashes = draw.integers(0, 60, size=(3, 100))
    columns = {
        role: TokenColumn(flat=np.zeros(0, np.int32), offsets=np.zeros(101, np.int64), text=text)
        for role, text in zip(("anchor", "positive", "negative_1"), hashes, strict=True)
    }
    examples = Examples(ids=np.arange(100), columns=columns)
    rows = [sorted(set(row)) for row in hashes.T.tolist()]
    count = Counter(text for row in rows for text in row)
    shared = sorted(text for text, times in count.items() if times > 1)
    for size in (7, 1000):
        monkeypatch.setattr(repeated_texts, "_BLOCK", size)
        found = repeated_texts.RepeatedTexts(examples)
        assert found.most == max(count.values())
        entry, owner = found._entries(np.arange(100))
        keys = [found._key[entry[owner == row]].tolist() for row in range(100)]
        assert keys == [[shared.index(text) for text in row if count[text] > 1] for row in rows]
        heaviest = [max(row, key=lambda text: (count[text], -text)) for row in rows]
        assert found._group.tolist() == [
            shared.index(text) if count[text] > 1 else -1 for text in heaviest
        ]
