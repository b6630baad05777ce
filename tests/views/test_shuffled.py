"""shuffled: the same words, special tokens where they were."""

from __future__ import annotations

import numpy as np

from sentemb.views import ShuffledWords, Twice


def test_rows_keep_their_words_and_special_tokens_their_places(examples_of, context_of):
    rows = [[2, 7, 8, 9, 10, 11, 3], [2, 12, 3], [2, 5, 6, 7, 8, 3]]
    examples = examples_of(anchor=rows)
    context = context_of(examples)
    views = Twice()(examples, context)
    copy = ShuffledWords()(views, context)["negative_1"]
    assert np.array_equal(copy.column.offsets, examples.columns["anchor"].offsets)
    for i, row in enumerate(rows):
        found = copy.column.take(np.array([i])).flat.tolist()
        assert (found[0], found[-1]) == (2, 3)
        assert sorted(found) == sorted(row)
    assert copy.ids.tolist()[1] == 51  # one word has one order: it is the text that it was
    assert copy.column.text.tolist()[1] == examples.columns["anchor"].text[1]
    assert copy.ids.tolist()[0] == copy.column.text.tolist()[0] == -1
    assert views["anchor"].column.flat.tolist() == [token for row in rows for token in row]


def test_orders_are_drawn_from_the_context(examples_of, context_of):
    examples = examples_of(anchor=[[2, *range(5, 25), 3]])
    draws = [
        ShuffledWords(to="negative_2")(Twice()(examples, context_of(examples)), context_of(examples, seed=seed))
        for seed in (0, 0, 1)
    ]
    first, again, other = (draw["negative_2"].column.flat.tolist() for draw in draws)
    assert first == again != other


def test_every_order_is_as_likely(examples_of, context_of):
    examples = examples_of(anchor=[[2, 5, 6, 7, 3]] * 3000)
    context = context_of(examples)
    flat = ShuffledWords()(Twice()(examples, context), context)["negative_1"].column.flat.reshape(3000, 5)
    _, counts = np.unique(flat[:, 1:4], axis=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 420
