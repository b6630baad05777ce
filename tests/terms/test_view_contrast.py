"""view_contrast against loops over views and examples, and what it is with one view."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.maths.table import in_batch_table
from sentemb.terms import InfoNCE, ViewContrast
from sentemb.types import Batch, Rows

NAMES = ("anchor", "positive", "positive_2")


def batch_of(*embeddings):
    n = len(embeddings[0])
    views = {
        name: Rows(embedding=one, ids=torch.arange(n), text=torch.arange(n))
        for name, one in zip(NAMES, embeddings, strict=False)
    }
    return Batch(views=views, local=slice(0, n), tokens={}, encoded={})


def random_rows(n=4, d=5):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in NAMES]


def loss_of(batch, *, similarity="cosine", **settings):
    table = in_batch_table(batch.views["anchor"], batch.views["positive"], similarity)
    return ViewContrast(**settings)(table, batch)


def reference(rows, temperature):
    unit = [[row / row.norm() for row in view] for view in rows]
    total = 0.0
    for view in unit[1:]:
        for i, anchor in enumerate(unit[0]):
            e = [math.exp(float(anchor @ other) / temperature) for other in view]
            total -= math.log(e[i] / sum(e)) / len(unit[0])
    return total


def test_equals_the_loop():
    rows = random_rows()
    loss = loss_of(batch_of(*rows), of=["positive", "positive_2"], temperature=0.4)
    assert loss.item() == pytest.approx(reference(rows, 0.4), rel=1e-12)


def test_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    loss = loss_of(batch_of(eye, eye, eye.flip(0)), of=["positive", "positive_2"], temperature=1.0)
    assert loss.item() == pytest.approx(math.log(1 + 1 / math.e) + math.log(1 + math.e))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_one_view_is_info_nce(similarity):
    batch = batch_of(*random_rows())
    table = in_batch_table(batch.views["anchor"], batch.views["positive"], similarity)
    expected = InfoNCE(temperature=0.3)(table, batch).item()
    assert loss_of(batch, temperature=0.3, similarity=similarity).item() == pytest.approx(expected, rel=1e-12)


def test_order_of_views_and_examples_does_not_matter():
    rows, order = random_rows(), torch.tensor([2, 0, 3, 1])
    loss = loss_of(batch_of(*rows), of=["positive", "positive_2"])
    turned = batch_of(*(rows[place][order] for place in (0, 2, 1)))
    assert loss_of(turned, of=["positive", "positive_2"]).item() == pytest.approx(loss.item(), rel=1e-12)


def test_gradcheck_and_edges():
    of = ["positive", "positive_2"]
    rows = [one.requires_grad_() for one in random_rows(n=3, d=3)]
    assert torch.autograd.gradcheck(lambda *given: loss_of(batch_of(*given), of=of, temperature=0.5), rows)
    assert loss_of(batch_of(*random_rows(n=1)), of=of).item() == 0.0
    half = [one.bfloat16() for one in random_rows()]
    loss = loss_of(batch_of(*half), of=of, temperature=0.01)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_refuses_no_view_and_a_view_twice():
    for of in ([], ["positive", "positive"]):
        with pytest.raises(ValueError, match="of"):
            ViewContrast(of=of)
    with pytest.raises(ValueError, match="temperature"):
        ViewContrast(temperature=0.0)
    assert ViewContrast(of=["positive", "positive_2"]).needs == {"view:positive", "view:positive_2"}
