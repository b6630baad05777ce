"""all_views_contrast against loops over all ordered pairs of rows, and what it is in simple cases."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sentemb.errors import RecipeError
from sentemb.maths.table import in_batch_table
from sentemb.terms import AllViewsContrast, InfoNCE, MultiView
from sentemb.types import Batch, Rows

NAMES = ("anchor", "positive", "positive_2", "positive_3")


def batch_of(embeddings, label=None):
    n = len(next(iter(embeddings.values())))
    label = None if label is None else torch.tensor(label)
    views = {
        name: Rows(embedding=one, ids=torch.arange(n), text=torch.arange(n), label=label)
        for name, one in embeddings.items()
    }
    return Batch(views=views, local=slice(0, n), tokens={}, encoded={})


def random_batch(v, n=4, d=5, label=None):
    generator = torch.Generator().manual_seed(0)
    draw = {name: torch.randn(n, d, generator=generator, dtype=torch.float64) for name in NAMES[:v]}
    return batch_of(draw, label)


def loss_of(batch, **settings):
    table = in_batch_table(batch.views["anchor"], batch.views["positive"])
    return AllViewsContrast(**settings)(table, batch)


def reference(batch, temperature, label=None):
    rows = [
        (row / row.norm(), i, None if label is None or label[i] == -1 else label[i])
        for view in batch.views.values() for i, row in enumerate(view.embedding)
    ]
    total = 0.0
    for a, (row, i, own) in enumerate(rows):
        others = [entry for b, entry in enumerate(rows) if b != a]
        below = sum(math.exp(float(row @ other) / temperature) for other, _, _ in others)
        near = [other for other, j, kind in others if j == i or (own is not None and kind == own)]
        total -= sum(math.log(math.exp(float(row @ other) / temperature) / below) for other in near) / len(near)
    return total / len(rows)


@pytest.mark.parametrize("v", [2, 3, 4])
@pytest.mark.parametrize("label", [[0, 1, 0, 1], [0, 1, 2, 3], [5, 5, 5, 5], [-1, 2, -1, 2]])
def test_equals_the_loop(v, label):
    batch = random_batch(v, label=label)
    assert loss_of(batch, temperature=0.4).item() == pytest.approx(reference(batch, 0.4, label), rel=1e-12)
    plain = loss_of(batch, temperature=0.4, same_label=False)
    assert plain.item() == pytest.approx(reference(batch, 0.4), rel=1e-12)


def test_two_views_of_two_texts_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    batch = batch_of({"anchor": eye, "positive": eye}, [0, 1])
    # the positive is e, the two rows of the other text are 1
    assert loss_of(batch, temperature=1.0).item() == pytest.approx(math.log(1 + 2 / math.e))
    # of one class: every other row is a positive, of log e, 1 and 1
    batch = batch_of({"anchor": eye, "positive": eye}, [0, 0])
    assert loss_of(batch, temperature=1.0).item() == pytest.approx(math.log(math.e + 2) - 1 / 3)


def test_two_views_of_different_classes_are_nt_xent():
    batch = random_batch(2, label=[0, 1, 2, 3])
    table = in_batch_table(batch.views["anchor"], batch.views["positive"])
    expected = MultiView(kind="pairs", negatives="all", temperature=0.3)(table, batch).item()
    assert loss_of(batch, temperature=0.3).item() == pytest.approx(expected, rel=1e-12)


def test_where_a_view_does_not_compete_with_itself_it_is_info_nce():
    # two texts, opposite in each view: at this temperature their pair of one view weighs e^-50, that of two views e^-10
    angle = math.acos(0.1)
    first = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    batch = batch_of({"anchor": first, "positive": torch.cat([second, -second])})
    expected = InfoNCE(temperature=0.02)(in_batch_table(*batch.views.values()), batch).item()
    assert expected > 1e-5
    assert loss_of(batch, temperature=0.02, same_label=False).item() == pytest.approx(expected, rel=1e-9)


def test_order_of_views_and_examples_does_not_matter():
    label = [0, 1, 0, 2]
    batch = random_batch(3, label=label)
    order = torch.tensor([2, 0, 3, 1])
    embedding = {name: rows.embedding for name, rows in batch.views.items()}
    turned = zip(embedding, ("positive_2", "anchor", "positive"), strict=True)
    other = batch_of({name: embedding[source][order] for name, source in turned}, [label[i] for i in order.tolist()])
    assert loss_of(other).item() == pytest.approx(loss_of(batch).item(), rel=1e-12)


def test_views_may_be_named():
    batch = random_batch(3, label=[0, 1, 0, 1])
    two = batch_of({name: batch.views[name].embedding for name in NAMES[:2]}, [0, 1, 0, 1])
    term = AllViewsContrast(of=["anchor", "positive"])
    table = in_batch_table(batch.views["anchor"], batch.views["positive"])
    assert term(table, batch).item() == loss_of(two).item()
    assert term.needs == {"view:anchor", "view:positive", "labels"}
    assert AllViewsContrast(same_label=False).needs == frozenset()


def test_gradcheck():
    batch = random_batch(3, n=3, d=3, label=[0, 1, 0])

    def loss(*embeddings):
        return loss_of(batch_of(dict(zip(batch.views, embeddings, strict=True)), [0, 1, 0]), temperature=0.5)

    assert torch.autograd.gradcheck(loss, [rows.embedding.clone().requires_grad_() for rows in batch.views.values()])


def test_two_views_of_one_example_give_nothing():
    alone = random_batch(2, n=1, label=[0])
    anchor = alone.views["anchor"].embedding.requires_grad_()
    value = loss_of(alone)
    value.backward()
    assert value.item() == 0.0
    assert (anchor.grad == 0).all()


def test_equal_views_at_a_small_temperature_in_bfloat16_are_finite():
    half = random_batch(2, n=6).views["anchor"].embedding.bfloat16()
    loss = loss_of(batch_of(dict.fromkeys(NAMES, half), [0, 0, 1, 1, 2, 3]), temperature=0.01)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_refuses_one_view_and_missing_labels():
    with pytest.raises(ValueError, match="of"):
        AllViewsContrast(of=["anchor"])
    batch = random_batch(2)
    with pytest.raises(RecipeError, match="no label column"):
        loss_of(batch)
    table = in_batch_table(*batch.views.values())
    with pytest.raises(RecipeError, match="only anchor"):
        AllViewsContrast(same_label=False)(table, replace(batch, views={"anchor": batch.views["anchor"]}))
