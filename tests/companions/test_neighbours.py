"""Neighbours within the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_module import TinyModule, build_of, column_of, examples_of, services_of

from sentemb.companions import PARTS
from sentemb.companions.neighbours import Neighbours
from sentemb.errors import CheckpointError

WORDS = [f"w{i}" for i in range(40)]
ROWS = [[int(t) for t in np.random.default_rng(i).integers(5, 40, 1 + i % 5)] for i in range(20)]
TEXT = [200 - i for i in range(20)]


def prepared(**options: object) -> Neighbours:
    companion = Neighbours(**options)
    companion.bind(build_of(TinyModule()))
    columns = {"anchor": column_of([[5]] * 20, [1] * 20), companion.column: column_of(ROWS, TEXT)}
    companion.prepare(examples_of(**columns), services_of(WORDS))
    return companion


def similarities() -> torch.Tensor:
    vectors = torch.from_numpy(services_of(WORDS).embed(TinyModule(seed=7), column_of(ROWS)))
    vectors = vectors - vectors.mean(0)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return vectors @ vectors.T


@pytest.mark.parametrize("column", ["anchor", "positive"])
def test_window_is_the_ranks_after_the_skipped(column):
    companion = prepared(count=3, skip=2, column=column)
    rows, known = companion.window(np.array(TEXT, dtype=np.int64))
    assert known.all()
    sim = similarities().fill_diagonal_(-2)
    found = np.sort(np.take_along_axis(sim.numpy(), rows, axis=1), axis=1)[:, ::-1]
    np.testing.assert_allclose(found, sim.topk(5, dim=1).values[:, 2:].numpy(), atol=1e-5)


def test_similarity_by_content_hash():
    companion = prepared()
    text = torch.tensor([*TEXT, 999])
    sim, known = companion.similarity(text, torch.tensor(TEXT[:4]))
    torch.testing.assert_close(sim[:20], similarities()[:, :4], atol=2e-3, rtol=0)
    assert known[:20].all()
    assert not known[20].any()


def test_few_texts_give_a_narrower_window():
    rows, known = prepared(count=50, skip=5).window(np.array([TEXT[0], 999]))
    assert rows.shape == (2, 14)
    assert known.tolist() == [True, False]
    assert prepared(count=1, skip=100).window(np.array([TEXT[0]]))[0].shape == (1, 1)


def test_checkpoint_refuses_another_model():
    companion = prepared()
    state = companion.checkpoint_state()
    companion.load_checkpoint_state(state)
    other = Neighbours()
    other.bind(build_of(TinyModule(), TinyModule(seed=8)))
    with pytest.raises(CheckpointError, match="companion neighbours"):
        other.load_checkpoint_state(state)


@pytest.mark.parametrize("bad", [{"count": 0}, {"skip": -1}, {"column": "negative_1"}])
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Neighbours(**bad)


def test_is_a_part():
    assert PARTS["neighbours"] is Neighbours
