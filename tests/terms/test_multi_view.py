"""multi_view against loops over views and examples, and what it is with two views."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from sentemb.errors import RecipeError
from sentemb.maths.table import in_batch_table
from sentemb.terms import InfoNCE, MultiView
from sentemb.types import Batch, Rows

NAMES = ("anchor", "positive", "positive_2", "positive_3")
KINDS = [
    (kind, negatives) for kind in ("pairs", "arithmetic", "mean", "one_log") for negatives in ("other", "all", "same")
]
KINDS.append(("dhel", "same"))


def batch_of(embeddings):
    n = len(next(iter(embeddings.values())))
    views = {name: Rows(embedding=one, ids=torch.arange(n), text=torch.arange(n)) for name, one in embeddings.items()}
    return Batch(views=views, local=slice(0, n), tokens={}, encoded={})


def random_batch(v, n=4, d=5):
    generator = torch.Generator().manual_seed(0)
    return batch_of({name: torch.randn(n, d, generator=generator, dtype=torch.float64) for name in NAMES[:v]})


def loss_of(batch, **settings):
    table = in_batch_table(batch.views["anchor"], batch.views["positive"])
    return MultiView(**settings)(table, batch)


def reference(batch, kind, negatives, temperature):
    unit = [[row / row.norm() for row in rows.embedding] for rows in batch.views.values()]
    v, n = len(unit), len(unit[0])

    def e(a, i, b, j):
        return math.exp(float(unit[a][i] @ unit[b][j]) / temperature)

    views = {"other": lambda a, b: a != b, "all": lambda a, b: True, "same": lambda a, b: a == b}[negatives]
    below = [
        [sum(e(a, i, b, j) for b in range(v) for j in range(n) if j != i and views(a, b)) for i in range(n)]
        for a in range(v)
    ]
    total = 0.0
    for i in range(n):
        if kind in ("one_log", "dhel"):
            together = sum(e(a, i, b, i) for a, b in permutations(range(v), 2))
            if kind == "one_log":
                total -= math.log(together / (together + sum(below[a][i] for a in range(v)))) / n
            else:
                total -= math.log(together / 2 / math.prod(below[a][i] for a in range(v))) / n
            continue
        for a in range(v):
            if kind == "mean":
                rest = sum(unit[b][i] for b in range(v) if b != a)
                own = math.exp(float(unit[a][i] @ (rest / rest.norm())) / temperature)
                total -= math.log(own / (own + below[a][i])) / n / v
                continue
            p = [e(a, i, b, i) / (e(a, i, b, i) + below[a][i]) for b in range(v) if b != a]
            mean = sum(p) / len(p) if kind == "arithmetic" else math.prod(p) ** (1 / len(p))
            total -= math.log(mean) / n / v
    return total


@pytest.mark.parametrize("v", [2, 3, 4])
@pytest.mark.parametrize(("kind", "negatives"), KINDS)
def test_equals_the_loop(kind, negatives, v):
    batch = random_batch(v)
    loss = loss_of(batch, kind=kind, negatives=negatives, temperature=0.4)
    assert loss.item() == pytest.approx(reference(batch, kind, negatives, 0.4), rel=1e-10)


def test_two_views_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    batch = batch_of({"anchor": eye, "positive": eye})
    # every positive is e; the negatives are 1, one of each view
    assert loss_of(batch, kind="pairs", temperature=1.0).item() == pytest.approx(math.log(1 + 2 / math.e))
    assert loss_of(batch, kind="dhel", negatives="same", temperature=1.0).item() == pytest.approx(-1.0)


def test_two_views_against_the_other_are_info_nce_in_both_directions():
    batch = random_batch(2)
    table = in_batch_table(batch.views["anchor"], batch.views["positive"])
    expected = InfoNCE(temperature=0.3, directions="both")(table, batch).item()
    assert loss_of(batch, negatives="other", temperature=0.3).item() == pytest.approx(expected, rel=1e-12)


def test_arithmetic_is_below_pairs_and_equal_with_two_views():
    for v in (3, 4):
        batch = random_batch(v)
        assert loss_of(batch, kind="arithmetic").item() < loss_of(batch, kind="pairs").item()
    batch = random_batch(2)
    assert loss_of(batch, kind="arithmetic").item() == pytest.approx(loss_of(batch, kind="pairs").item())
    assert loss_of(batch, kind="mean").item() == pytest.approx(loss_of(batch, kind="pairs").item())


@pytest.mark.parametrize(("kind", "negatives"), KINDS)
def test_order_of_views_and_examples_does_not_matter(kind, negatives):
    batch = random_batch(3)
    embedding = {name: rows.embedding for name, rows in batch.views.items()}
    order = torch.tensor([2, 0, 3, 1])
    turned = zip(embedding, ("positive_2", "anchor", "positive"), strict=True)
    other = batch_of({name: embedding[source][order] for name, source in turned})
    settings = {"kind": kind, "negatives": negatives}
    assert loss_of(other, **settings).item() == pytest.approx(loss_of(batch, **settings).item(), rel=1e-12)


@pytest.mark.parametrize(("kind", "negatives"), KINDS)
def test_gradcheck_and_one_example(kind, negatives):
    batch = random_batch(3, n=3, d=3)

    def loss(*embeddings):
        changed = batch_of(dict(zip(batch.views, embeddings, strict=True)))
        return loss_of(changed, kind=kind, negatives=negatives, temperature=0.5)

    assert torch.autograd.gradcheck(loss, [rows.embedding.clone().requires_grad_() for rows in batch.views.values()])
    alone = random_batch(3, n=1)
    anchor = alone.views["anchor"].embedding.requires_grad_()
    value = loss_of(alone, kind=kind, negatives=negatives)
    value.backward()
    assert value.item() == 0.0
    assert (anchor.grad == 0).all()


@pytest.mark.parametrize(("kind", "negatives"), KINDS)
def test_equal_views_at_a_small_temperature_are_finite(kind, negatives):
    half = random_batch(2, n=6).views["anchor"].embedding.bfloat16()
    loss = loss_of(batch_of(dict.fromkeys(NAMES, half)), kind=kind, negatives=negatives, temperature=0.01)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_refuses_one_view_and_dhel_with_others():
    with pytest.raises(ValueError, match="of"):
        MultiView(of=["anchor"])
    with pytest.raises(ValueError, match='takes negatives = "same"'):
        MultiView(kind="dhel")
    batch = random_batch(2)
    with pytest.raises(RecipeError, match="only anchor"):
        MultiView()(in_batch_table(*batch.views.values()), batch_of({"anchor": batch.views["anchor"].embedding}))
