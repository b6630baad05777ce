"""grounded_contrast against loops: who is contrasted, what learns, which files it takes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_module import column_of, examples_of, services_of
from torch import nn

from sentemb.errors import DataError, RecipeError
from sentemb.maths.table import in_batch_table
from sentemb.recipe.recipe import Recipe
from sentemb.terms import GroundedContrast
from sentemb.types import Batch, Build, Rows, Vocabulary

POOLED, FEATURES, ROWS = 4, 3, 6


@pytest.fixture
def vectors(tmp_path):
    """A file of six vectors, whose rows 1 and 4 are unknown."""
    array = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    array[[1, 4]] = np.nan
    np.save(tmp_path / "vectors.npy", array)
    return tmp_path / "vectors.npy"


def bound(path, **settings):
    torch.manual_seed(0)
    term = GroundedContrast(path=str(path), **{"width": 5, "temperature": 0.4, **settings})
    encoder = nn.Module()
    encoder.width, encoder.pooled_width = 7, POOLED
    vocabulary = Vocabulary(size=9, pad=0, mask=None, special=frozenset())
    term.bind(Build(backbone="", width=7, vocabulary=vocabulary, encoder=encoder, load_encoder=lambda _: encoder))
    return term.double()


def batch_of(pooled, ids):
    n = len(ids)
    rows = Rows(embedding=torch.randn(n, 7), ids=torch.tensor(ids), text=torch.arange(n))
    return Batch(
        views={"anchor": rows, "positive": rows}, local=slice(0, n), tokens={}, encoded={},
        pooled=dict(zip(("anchor", "positive"), pooled, strict=True)),
    )


def pooled_rows(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, POOLED, generator=generator, dtype=torch.float64) for _ in range(2)]


def loss_of(term, batch):
    return term(in_batch_table(batch.views["anchor"], batch.views["positive"]), batch)


def mapped(linear, row):
    values = [math.tanh(sum(w * x for w, x in zip(weights, row, strict=True)) + bias)
              for weights, bias in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)]
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]


def reference(term, pooled, ids, array):
    known = [place for place, row in enumerate(ids) if not any(math.isnan(x) for x in array[row])]
    grounded = {i: mapped(term.vector_map, array[ids[i]]) for i in known}
    total = 0.0
    for view in pooled:
        for i in known:
            text = mapped(term.text_map, view[i].tolist())
            e = {j: math.exp(sum(a * b for a, b in zip(text, grounded[j], strict=True)) / 0.4) for j in known}
            total -= math.log(e[i] / sum(e.values())) / len(known) / len(pooled)
    return total


def test_equals_the_loop_over_examples_that_have_a_vector(vectors):
    term, pooled, ids = bound(vectors), pooled_rows(5), [5, 1, 0, 4, 2]
    array = np.load(vectors).astype(np.float32).tolist()
    loss = loss_of(term, batch_of(pooled, ids))
    assert loss.item() == pytest.approx(reference(term, pooled, ids, array), rel=1e-12)


def test_by_hand(tmp_path):
    np.save(tmp_path / "eye.npy", np.eye(2, dtype=np.float32))
    term = bound(tmp_path / "eye.npy", width=2, temperature=1.0, of=["anchor"])
    with torch.no_grad():
        for linear in (term.text_map, term.vector_map):
            linear.weight.copy_(torch.eye(*linear.weight.shape))
            linear.bias.zero_()
    pooled = torch.eye(2, POOLED, dtype=torch.float64)
    # each text has a cosine of 1 with its own vector and of 0 with the other's
    assert loss_of(term, batch_of([pooled, pooled], [0, 1])).item() == pytest.approx(math.log(1 + 1 / math.e))


def test_captions_and_vectors_may_be_permuted_together(vectors):
    term, pooled, ids = bound(vectors), pooled_rows(6), [0, 1, 2, 3, 4, 5]
    order = [3, 5, 1, 0, 2, 4]
    turned = batch_of([view[order] for view in pooled], [ids[place] for place in order])
    assert loss_of(term, turned).item() == pytest.approx(loss_of(term, batch_of(pooled, ids)).item(), rel=1e-12)


def test_gradients_reach_the_pooled_rows_and_both_maps(vectors):
    term, pooled = bound(vectors), [view.requires_grad_() for view in pooled_rows(4)]
    assert torch.autograd.gradcheck(lambda *views: loss_of(term, batch_of(views, [0, 1, 2, 3])), pooled)
    loss_of(term, batch_of(pooled, [0, 1, 2, 3])).backward()
    assert all(value.grad.abs().sum() > 0 for value in term.parameters())
    for view in pooled:
        assert (view.grad[1] == 0).all()  # it has no vector
        assert (view.grad[0] != 0).any()


@pytest.mark.parametrize("ids", [[1], [1, 4], [0], [0, 1]])
def test_no_vector_or_one_gives_zero_and_no_gradient(vectors, ids):
    term, pooled = bound(vectors), [view.requires_grad_() for view in pooled_rows(len(ids))]
    loss = loss_of(term, batch_of(pooled, ids))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    for value in (*pooled, *term.parameters()):
        assert value.grad.abs().max() < 1e-12


def test_bfloat16_rows(vectors):
    pooled = [view.bfloat16() for view in pooled_rows(3)]
    loss = loss_of(bound(vectors, temperature=0.01).float(), batch_of(pooled, [0, 2, 3]))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_files_that_do_not_fit_are_told(vectors, tmp_path):
    term = bound(vectors)
    term.prepare(examples_of(anchor=column_of([[2, 5, 3]] * ROWS)), services_of([]))
    with pytest.raises(DataError, match="has 6 rows, the data have 7"):
        term.prepare(examples_of(anchor=column_of([[2, 5, 3]] * (ROWS + 1))), services_of([]))
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "flat.npy", np.ones(3))
    np.save(tmp_path / "whole.npy", np.ones((3, 2), dtype=np.int64))
    np.savez(tmp_path / "several.npz", np.ones((3, 2)))
    for name, words in (
        ("none.npy", "No such file"), ("text.npy", "give a .npy file"), ("flat.npy", r"float64 \(3,\)"),
        ("whole.npy", "int64"), ("several.npz", "no array"),
    ):
        with pytest.raises(DataError, match=words):
            bound(tmp_path / name)


def test_refuses_rows_that_move_and_wrong_settings():
    skipping = {"data": SimpleNamespace(skip_faulty=True)}
    assert "skip_faulty" in GroundedContrast().faults(skipping)[0]
    assert not GroundedContrast().faults({"data": SimpleNamespace(skip_faulty=False)})
    with pytest.raises(RecipeError, match="skip_faulty"):
        Recipe.load("mcse-minilm", ["data.skip_faulty=true"])
    for wrong in ({"width": 0}, {"temperature": 0.0}, {"of": []}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GroundedContrast(**wrong)
    assert GroundedContrast().needs == {"pooled", "view:anchor", "view:positive"}
