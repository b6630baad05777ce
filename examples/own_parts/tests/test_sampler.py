from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from own_parts.kind import Usearch
from own_parts.sampler import Ance, AnceNegatives

from sentemb.parts import room, to_table
from sentemb.search.vectors import VectorIndex
from sentemb.types import Batch, Examples, Services, TokenColumn, View, ViewContext, Vocabulary

ROWS, DEPTH = 40, 5


def column(text: np.ndarray) -> TokenColumn:
    return TokenColumn(flat=np.arange(len(text), dtype=np.int32), offsets=np.arange(len(text) + 1), text=text)


@pytest.fixture
def dataset() -> Examples:
    text = np.arange(100, 100 + ROWS)
    text[7] = text[3]  # two anchors share a positive
    return Examples(ids=np.arange(ROWS), columns={"anchor": column(np.arange(ROWS)), "positive": column(text)})


@pytest.fixture
def vectors() -> Callable[[TokenColumn], np.ndarray]:
    values = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return lambda texts: values[texts.text]


def after(companion: Ance, step: int, vectors: Callable[[TokenColumn], np.ndarray]) -> None:
    services = Services(
        embed=lambda encoder, texts: vectors(texts), nearest=None, decode=None, say=lambda line: None  # type: ignore
    )
    companion.after_step(Batch(views={}, local=slice(0), tokens={}, encoded={}, step=step), None, services)  # type: ignore


@pytest.mark.parametrize("kind", [None, Usearch()])
def test_it_mines_every_n_batches(kind: VectorIndex | None, dataset: Examples, vectors) -> None:
    companion = Ance(every=3, depth=DEPTH, kind=kind)
    companion.prepare(dataset, None)  # type: ignore
    before = companion.neighbours.clone()
    assert before[39].tolist() == [0, 1, 2, 3, 4]
    after(companion, 1, vectors)
    assert companion.neighbours.equal(before)
    after(companion, 2, vectors)
    text = dataset.columns["positive"].text
    similarity = vectors(dataset.columns["anchor"]) @ vectors(dataset.columns["positive"]).T
    for i, neighbours in enumerate(companion.neighbours.tolist()):
        others = [j for j in np.argsort(-similarity[i]).tolist() if text[j] != text[i]]
        assert sorted(text[neighbours]) == sorted(text[others[:DEPTH]])
        assert similarity[i, neighbours].tolist() == sorted(similarity[i, neighbours].tolist(), reverse=True)


def test_negatives_are_drawn_from_what_is_known_now(dataset: Examples, vectors) -> None:
    companion = Ance(every=1, depth=DEPTH)
    companion.prepare(dataset, None)  # type: ignore
    after(companion, 0, vectors)
    batch = dataset.take(np.array([30, 2, 7]))
    context = ViewContext(
        generator=np.random.default_rng(0), dataset=dataset, companions={"ance": companion},
        vocabulary=Vocabulary(size=200, pad=0, mask=None, special=frozenset()),
    )  # fmt: skip
    drawn = set()
    for _ in range(60):
        (view,) = AnceNegatives()({"anchor": View(column=batch.columns["anchor"], ids=batch.ids)}, context).values()
        assert (view.column.text == dataset.columns["positive"].text[view.ids]).all()
        drawn.update(zip(batch.ids.tolist(), view.ids.tolist(), strict=True))
    assert drawn == {(i, j) for i in batch.ids.tolist() for j in companion.neighbours[i].tolist()}


def test_its_index_is_a_part_of_its_settings() -> None:
    table = {"use": "ance", "depth": 4, "kind": {"use": "usearch", "m": 8}}
    companion = room("companions").make(table)
    assert companion == Ance(depth=4, kind=Usearch(m=8))
    assert to_table(companion) == table
