"""edited: every edit against a slow version on lists, what it never touches, and how much it takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sentemb.errors import ModelError, RecipeError
from sentemb.views import Edited, Twice
from sentemb.views.edited import Words, rank_in_rows, swapped

SPECIAL = np.array([0, 2, 3], dtype=np.int32)
ROWS = [[2, *range(5, 25), 3], [2, 5, 3], [2, 3], [2, 5, 6, 3], [2, *range(6, 13), 3], [2, 5, 6, 7, 3]]


class NextWords:
    """The two tokens after every token are similar to it."""

    def similar(self, tokens):
        return tokens[:, None] + np.array([1, 2], dtype=np.int32)


def rows_of(column):
    return [column.flat[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


@pytest.fixture
def edited(examples_of, context_of):
    """Rows of anchor and positive."""

    def make(rows, *, seed=0, **settings):
        examples = examples_of(anchor=rows)
        context = replace(context_of(examples, seed=seed), companions={"similar_words": NextWords()})
        views = Edited(**settings)(examples, context)
        assert views["anchor"].ids is views["positive"].ids is examples.ids
        assert views["positive"].column.text is examples.columns["anchor"].text
        assert examples.columns["anchor"].flat.tolist() == [token for row in rows for token in row]
        for view in views.values():
            assert view.column.flat.dtype == np.int32
            assert view.column.offsets.dtype == np.int64
        return rows_of(views["anchor"].column), rows_of(views["positive"].column)

    return make


def test_without_edits_it_is_twice(examples_of, context_of):
    examples = examples_of(anchor=ROWS)
    plain = Twice()(examples, context_of(examples))
    edits = ["delete_words", "substitute"]
    for settings in ({"first": [], "second": []},
                     {"first": edits, "second": edits, "delete_share": 0.0, "substitute_share": 0.0}):
        context = replace(context_of(examples), companions={"similar_words": NextWords()})
        views = Edited(**settings)(examples, context)
        for name, view in views.items():
            assert rows_of(view.column) == rows_of(plain[name].column)


@pytest.mark.parametrize("marker", [False, True])
def test_deleted_words_by_lists(edited, marker):
    first, second = edited(ROWS, first=["delete_words"], second=[], delete_share=0.6, marker=marker)
    draws = iter(np.random.default_rng(0).random(sum(len(row) - 2 for row in ROWS)))
    expected = []
    for row in ROWS:
        drawn = [next(draws) for _ in row[1:-1]]
        safe = sorted(drawn)[-2:]
        words = []
        for token, draw in zip(row[1:-1], drawn, strict=True):
            if draw >= 0.6 or draw in safe:
                words.append(token)
            elif marker and not (words and words[-1] == 4):
                words.append(4)
        expected.append([2, *words, 3])
    assert first == expected
    assert second == ROWS


def test_the_share_of_deleted_words_and_the_two_that_stay(edited):
    first, _ = edited([[2, *range(5, 25), 3]] * 1000, first=["delete_words"], second=[], delete_share=0.3)
    assert sum(22 - len(row) for row in first) / 20_000 == pytest.approx(0.3, abs=0.015)  # sd 0.0032
    first, _ = edited(ROWS, first=["delete_words"], second=[], delete_share=1.0)
    assert [len(row) for row in first] == [4, 3, 2, 4, 4, 4]


def test_substitutes_by_lists(edited):
    _, second = edited(ROWS, first=[], second=["substitute"], substitute_share=0.5)
    generator = np.random.default_rng(0)
    chosen = iter(generator.random(sum(len(row) - 2 for row in ROWS)) < 0.5)
    rows = [[next(chosen) for _ in row[1:-1]] for row in ROWS]
    which = iter(generator.integers(2, size=sum(map(sum, rows))))
    expected = [
        [2, *(token + 1 + next(which) if hit else token for token, hit in zip(row[1:-1], hits, strict=True)), 3]
        for row, hits in zip(ROWS, rows, strict=True)
    ]
    assert second == expected


@pytest.mark.parametrize(("spans", "share", "length", "count"), [(5, 0.05, 1, 5), (2, 0.15, 3, 2), (1, 0.5, 10, 1)])
def test_deleted_spans_take_whole_spans(edited, spans, share, length, count):
    rows = [[2, *range(5, 25), 3]] * 50
    first, _ = edited(rows, first=["delete_spans"], second=[], spans=spans, span_share=share)
    for row in first:
        assert len(row) == 22 - length * count
        assert row == [*sorted(set(row) - {3}), 3]  # the others stand as they did
        gone = sorted(set(range(5, 25)) - set(row))
        runs = np.split(gone, np.flatnonzero(np.diff(gone) > 1) + 1)
        assert all(len(run) % length == 0 for run in runs)
    marked, _ = edited(rows, first=["delete_spans"], second=[], spans=spans, span_share=share, marker=True)
    for row, plain in zip(marked, first, strict=True):
        assert [token for token in row if token != 4] == plain
        assert 1 <= row.count(4) <= count


def test_short_texts_lose_few_words(edited):
    first, second = edited(ROWS, first=["delete_spans"], second=["swap_spans"])
    assert [len(before) - len(after) for before, after in zip(ROWS, first, strict=True)] == [5, 0, 0, 0, 2, 1]
    assert second[1:4] == [[2, 5, 3], [2, 3], ROWS[3]]


def test_every_arrangement_of_spans_is_as_likely(column_of):
    words = Words.of(column_of([[2, *range(10, 17), 3]] * 6000), SPECIAL)
    spans = words.spans(2, 2 / 7, np.random.default_rng(1))  # two spans of two in seven: six arrangements
    starts = (spans.first.reshape(6000, 2) - 7 * np.arange(6000)[:, None]).tolist()
    counts = Counter(map(tuple, starts))
    assert set(counts) == {(a, b) for a in range(6) for b in range(a + 2, 6)}
    assert max(counts.values()) / min(counts.values()) < 1.25


def test_swapped_spans_by_lists(column_of):
    column = column_of(ROWS)
    words = Words.of(column, SPECIAL)
    spans = words.spans(2, 0.1, np.random.default_rng(3), pairs=True)
    flat = column.flat.tolist()
    places = [words.position[first : first + length] for first, length in zip(spans.first, spans.length, strict=True)]
    for one, other in zip(places[0::2], places[1::2], strict=True):
        assert (np.diff(one) == 1).all()
        for a, b in zip(one, other, strict=True):
            flat[a], flat[b] = flat[b], flat[a]
    assert swapped(column, words, spans).flat.tolist() == flat
    assert len(places) == 2 * (2 + 1 + 1)  # of 20, 7 and 3 words
    assert len(set(np.concatenate(places).tolist())) == 2 * (4 + 1 + 1)


def test_partners_are_drawn(column_of):
    words = Words.of(column_of([[2, 5, 6, 7, 8, 3]] * 900), SPECIAL)
    spans = words.spans(2, 0.25, np.random.default_rng(0), pairs=True)
    partners = {tuple(sorted(pair)) for pair in (spans.first[:4].reshape(2, 2) % 4).tolist()}
    assert partners
    counts = Counter(tuple(sorted((pair % 4).tolist())) for pair in spans.first.reshape(-1, 2))
    assert len(counts) == 6
    assert max(counts.values()) / min(counts.values()) < 1.4


def test_edits_follow_one_another_and_draws_come_from_the_context(edited):
    settings = {
        "first": ["swap_spans", "delete_words"], "second": ["delete_spans", "substitute"], "delete_share": 0.3
    }
    one = edited(ROWS, **settings)
    assert one == edited(ROWS, **settings)
    assert one != edited(ROWS, seed=1, **settings)
    assert all((row[0], row[-1]) == (2, 3) for rows in one for row in rows)


def test_no_rows(edited):
    every = ["delete_words", "delete_spans", "swap_spans", "substitute"]
    assert edited([], first=every, second=every) == ([], [])


def test_ranks():
    row = np.array([0, 0, 0, 2, 2])
    assert rank_in_rows(row, np.array([0.3, 0.1, 0.2, 5.0, -1.0])).tolist() == [2, 0, 1, 1, 0]


def test_what_is_missing_is_named(examples_of, context_of):
    examples = examples_of(anchor=ROWS)
    with pytest.raises(RecipeError, match="similar_words"):
        Edited()(examples, context_of(examples))
    with pytest.raises(ModelError, match="no mask token"):
        Edited(first=["delete_words"], second=[], marker=True)(examples, context_of(examples, mask=None))
    assert Edited().needs == {"companion:similar_words"}
    assert Edited(second=["swap_spans"]).needs == frozenset()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": ["delete"]}, "delete_words"),
        ({"delete_share": 1.5}, "less than or equal to 1"),
        ({"span_share": 0.2}, "more than half"),
        ({"spans": 0}, "greater than or equal to 1"),
        ({"substitute_share": -0.1}, "greater than or equal to 0"),
    ],
)
def test_wrong_values(settings, message):
    with pytest.raises(ValueError, match=message):
        Edited(**settings)
