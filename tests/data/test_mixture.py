"""Mixtures: batches of one source each, columns of their own, one order on every device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sentemb.data import InMemory, Lines, Mixture, TableData
from sentemb.data import mixture as mixtures
from sentemb.data.grouped import Grouped
from sentemb.data.mixture import MixedBatches, joined, load_examples
from sentemb.data.orders import Batches, NoDuplicates, Shuffled
from sentemb.data.templates import Template
from sentemb.data.tokens import TextTokeniser
from sentemb.data.turns import Power, RoundRobin
from sentemb.errors import DataError, PartError
from sentemb.types import UNKNOWN, Examples, Frame, TokenColumn
from sentemb.views import Columns


class Letters(TextTokeniser):
    """One token a letter."""

    def __init__(self, max_tokens: int = 99) -> None:
        self.max_tokens = max_tokens

    def __call__(self, texts: list[str], template: Template | None = None) -> TokenColumn:
        written = texts if template is None else template.fill(texts)
        rows = [text[: self.max_tokens] for text in written]
        flat = np.array([ord(letter) for letter in "".join(rows)], dtype=np.int32)
        text = np.zeros(len(rows), dtype=np.int64)
        return TokenColumn(flat=flat, offsets=np.cumsum([0, *map(len, rows)]), text=text)

    def frame(self, template: Template) -> Frame:
        raise AssertionError("no view subtracts a template")

    def fingerprint(self) -> str:
        return "letters"

    def cut_to(self, max_tokens: int) -> Letters:
        return Letters(max_tokens)


def rows(count: int, word: str, **columns: object) -> list[dict[str, object]]:
    return [{"anchor": f"{word}{i}", **columns} for i in range(count)]


def mixture(**settings: object) -> Mixture:
    lines = InMemory(data=rows(30, "wiki")).marked(name="wiki", batch_size=6)
    pairs = InMemory(data=[{"anchor": f"a{i}", "positive": f"p{i % 11}", "score": i / 12} for i in range(12)])
    return Mixture(parts=[lines, pairs.marked(name="sts")], **settings)


def epochs(data: Mixture, count: int, order: object = None, batch_size: int = 4) -> list[list[list[int]]]:
    mixed = MixedBatches(mixture=data, batches=order or NoDuplicates())
    batches = Batches(load_examples(data, Letters(), reader_of=Columns().of), mixed, batch_size=batch_size, seed=3)
    return [[batch.tolist() for batch in batches.epoch(epoch)] for epoch in range(count)]


def test_columns_of_the_whole_and_of_every_source():
    data = load_examples(mixture(), Letters(), reader_of=Columns().of)
    assert list(data.columns) == ["anchor", "positive"]
    assert data.ids.tolist() == list(range(42))
    assert data.columns["positive"].lengths.tolist()[:30] == [0] * 30
    assert set(data.columns["positive"].text[:30]) == {UNKNOWN}
    assert np.isnan(data.score[:30]).all()
    wiki, sts = data.sources.values()
    assert list(wiki.columns) == ["anchor"]
    assert wiki.score is None
    assert list(sts.columns) == ["anchor", "positive"]
    assert sts.score.tolist() == np.float32(np.arange(12) / 12).tolist()
    assert sts.ids.tolist() == list(range(30, 42))
    name, batch = data.batch(np.array([41, 33]))
    assert name == "sts"
    assert batch.ids.tolist() == [41, 33]
    assert "".join(map(chr, batch.columns["anchor"].flat)) == "a11a3"
    assert data.batch(np.array([2, 0]))[0] == "wiki"
    assert np.shares_memory(sts.columns["anchor"].flat, data.columns["anchor"].flat)


def test_many_ids_are_joined_in_a_file(monkeypatch, tmp_path):
    expected = load_examples(mixture(), Letters(), reader_of=Columns().of)
    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path))
    monkeypatch.setattr(mixtures, "_MAPPED_FROM", 10)
    monkeypatch.setattr(mixtures, "_WRITTEN", 7)
    mapped = load_examples(mixture(), Letters(), reader_of=Columns().of)
    for role, column in expected.columns.items():
        for name in ("flat", "offsets", "text"):
            assert np.array_equal(getattr(mapped.columns[role], name), getattr(column, name))
    assert not list(tmp_path.iterdir())


def test_labels_and_levels_where_a_source_has_none():
    def part(**columns: object) -> Examples:
        none = TokenColumn(flat=np.zeros(2, np.int32), offsets=np.arange(3), text=np.arange(2))
        return Examples(ids=np.arange(2), columns={"anchor": none}, **columns)

    data = joined({
        "a": part(label=np.array([4, 5]), levels=np.array([[1, 2], [3, 4]]), grades={"positive": np.float32([1, 2])}),
        "b": part(levels=np.array([[7], [8]])),
    })
    assert data.label.tolist() == [4, 5, UNKNOWN, UNKNOWN]
    assert data.levels.tolist() == [[1, 2], [3, 4], [7, UNKNOWN], [8, UNKNOWN]]
    assert np.array_equal(data.grades["positive"], np.float32([1, 2, np.nan, np.nan]), equal_nan=True)
    assert data.sources["b"].levels.tolist() == [[7], [8]]
    assert data.margin is None


def test_every_batch_is_of_one_source_and_every_row_comes_at_most_once():
    for schedule in ({}, {"schedule": RoundRobin()}):
        first, second = epochs(mixture(**schedule), 2)
        for epoch in (first, second):
            flat = [row for batch in epoch for row in batch]
            assert len(flat) == len(set(flat))
            for batch in epoch:
                assert {row < 30 for row in batch} in ({True}, {False})
                assert len(batch) == (6 if batch[0] < 30 else 4)
        assert first != second
        assert first == epochs(mixture(**schedule), 1)[0]  # a function of seed and epoch
    assert sum(batch[0] < 30 for batch in epochs(mixture(), 1)[0]) == 5  # all of it
    assert [batch[0] < 30 for batch in epochs(mixture(schedule=RoundRobin()), 1)[0]] == [True, False] * 3


def test_a_source_that_is_drawn_often_is_reshuffled():
    many = mixture(schedule=Power(alpha=0.0))
    epoch = next(epoch for epoch in epochs(many, 9) if sum(batch[0] >= 30 for batch in epoch) > 3)
    sts = [batch for batch in epoch if batch[0] >= 30]
    assert len(epoch) == 8
    assert sorted(row for batch in sts[:3] for row in batch) == list(range(30, 42))
    assert sts[3] not in sts[:3]


def test_texts_do_not_recur_in_a_batch():
    for epoch in epochs(mixture(), 6):
        for batch in epoch:
            assert not {30, 41} <= set(batch)  # both have the positive p0


def test_what_the_mixture_says_holds_for_sources_that_say_nothing():
    data = Mixture(
        max_rows=5, max_tokens=4, prefixes={"anchor": "q: "},
        parts=[
            InMemory(data=rows(9, "long")).marked(name="a"),
            InMemory(data=rows(9, "b"), max_rows=7, prefixes={}, max_tokens=3).marked(name="b", weight=2.0),
        ],
    )
    first, second = data.sources.values()
    assert (first.max_rows, first.max_tokens, first.prefixes) == (5, 4, {"anchor": "q: "})
    assert (second.max_rows, second.max_tokens) == (7, 3)
    assert second.given_marks == {"name": "b", "weight": 2.0}
    examples = load_examples(data, Letters(), reader_of=Columns().of)
    assert examples.columns["anchor"].lengths.max() == 4
    assert len(examples) == 12


def test_batches_by_label_of_every_source():
    part = InMemory(data=[{"anchor": f"x{i}", "label": i % 3} for i in range(18)]).marked(name="x", batch_size=6)
    other = InMemory(data=[{"anchor": f"y{i}", "label": i % 2} for i in range(8)]).marked(name="y")
    for batch in epochs(Mixture(parts=[part, other]), 1, Grouped(groups=2))[0]:
        labels = {row % 3 for row in batch} if batch[0] < 18 else {row % 2 for row in batch}
        assert len(labels) == 2


@pytest.mark.parametrize(("parts", "message"), [
    ([Lines(path="a.txt")], r'parts\[0\] needs a name = "…" without a slash; found ""'),
    ([Lines(path="a.txt").marked(name="a/b")], r'found "a/b"'),
    ([Lines(path="a.txt").marked(name="a"), Lines(path="b.txt").marked(name="a")], 'has 2 parts named "a"'),
    ([Mixture(parts=[Lines(path="a.txt").marked(name="a")]).marked(name="b")], "cannot be a mixture"),
    ([], "parts"),
])
def test_bad_parts_are_refused(parts, message):
    with pytest.raises(PartError, match=message):
        Mixture(parts=parts)


def test_a_source_that_makes_no_batches_is_named():
    twice = InMemory(data=rows(40, "b")).marked(name="b")
    same = InMemory(data=[("same", f"p{i}") for i in range(40)]).marked(name="a")
    with pytest.raises(DataError, match='source "a": one text occurs in 40 of 40 rows'):
        epochs(Mixture(parts=[twice, same]), 1, batch_size=8)
    assert epochs(Mixture(parts=[twice, same]), 1, Shuffled(), batch_size=8)


def test_other_data_under_the_same_names(tmp_path: Path):
    new = mixture(schedule=RoundRobin()).replaced({"wiki": TableData(path="x.tsv"), "sts": TableData(path="y.tsv")})
    assert [part.given_marks for part in new.parts] == [{"name": "wiki", "batch_size": 6}, {"name": "sts"}]
    assert str(new.sources["sts"]) == "y.tsv"
    assert new.schedule == RoundRobin()
