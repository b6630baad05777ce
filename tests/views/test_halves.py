"""halves: what each part holds, and that both together are the sentence."""

from __future__ import annotations

import numpy as np

from sentemb.views import Halves


def rows_of(view):
    column = view.column
    return [column.flat[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


def test_by_hand(examples_of, context_of):
    examples = examples_of(anchor=[[2, 5, 6, 7, 8, 9, 3], [2, 5, 6, 3], [2, 5, 3], [2, 3]])
    views = Halves()(examples, context_of(examples))
    assert list(views) == ["anchor", "positive", "part_2"] == list(Halves().makes(()))
    assert views["anchor"].column is examples.columns["anchor"]
    # a sentence of one token, or of none, is both of its halves
    assert rows_of(views["positive"]) == [[2, 5, 6, 7, 3], [2, 5, 3], [2, 5, 3], [2, 3]]
    assert rows_of(views["part_2"]) == [[2, 8, 9, 3], [2, 6, 3], [2, 5, 3], [2, 3]]
    for view in views.values():
        assert view.ids is examples.ids


def test_halves_rebuild_the_sentence_whatever_its_special_tokens(examples_of, context_of):
    draw = np.random.default_rng(0)
    rows = [draw.integers(5, 30, size=length).tolist() for length in range(2, 12)]
    rows = [[[2, *row, 3], row, [2, *row], [2, *row, 3, 3]][place % 4] for place, row in enumerate(rows)]
    examples = examples_of(anchor=rows)
    views = Halves()(examples, context_of(examples))
    for row, first, second in zip(rows, rows_of(views["positive"]), rows_of(views["part_2"]), strict=True):
        words = [[token for token in part if token not in (0, 2, 3)] for part in (row, first, second)]
        assert words[1] + words[2] == words[0]
        assert 0 <= len(words[1]) - len(words[2]) <= 1
        for part in (first, second):
            assert [token for token in part if token in (2, 3)] == [token for token in row if token in (2, 3)]


def test_hashes_tell_halves_from_sentences_and_from_each_other(examples_of, context_of):
    examples = examples_of(anchor=[[2, 5, 6, 3], [2, 5, 7, 3], [2, 5, 3]])
    views = Halves()(examples, context_of(examples))
    anchor, first, second = (views[name].column.text for name in ("anchor", "positive", "part_2"))
    assert first[2] == second[2] == anchor[2]
    changed = np.concatenate([first[:2], second[:2]])
    assert len(set(changed)) == 4
    assert not set(changed) & set(anchor)
    assert (changed >= 0).all()


def test_order_of_examples_does_not_matter(examples_of, context_of):
    examples = examples_of(anchor=[[2, 5, 6, 3], [2, 7, 8, 9, 3], [2, 5, 3]])
    order = np.array([2, 0, 1])
    views, turned = (Halves()(each, context_of(each)) for each in (examples, examples.take(order)))
    for name, view in views.items():
        assert rows_of(turned[name]) == [rows_of(view)[row] for row in order]
        assert np.array_equal(turned[name].column.text, view.column.text[order])
