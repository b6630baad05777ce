"""self_guided against a loop over texts and layers."""

from __future__ import annotations

import math

import pytest
import torch
from token_batches import Heads, build_with, normal

from sentemb.maths.table import in_batch_table
from sentemb.terms import InfoNCE, SelfGuided
from sentemb.types import Batch, Rows


class NoHeads(torch.nn.Module):
    """A sentence module without heads."""

    def project(self, pooled, *, exported=False):
        return pooled


def term_of(encoder, **settings):
    term = SelfGuided(**{"temperature": 0.2, **settings})
    term.bind(build_with(encoder))
    return term


def loss_of(term, anchor, layers):
    ids = torch.arange(len(anchor))
    rows = Rows(embedding=anchor, ids=ids, text=ids)
    batch = Batch(
        views={"anchor": rows, "positive": rows}, local=slice(0, len(anchor)), tokens={}, encoded={},
        outputs={"layers/anchor": layers},
    )
    return term(in_batch_table(rows, rows), batch)


def cosine(a, b):
    a, b = a.tolist(), b.tolist()
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_equals_the_loop():
    anchor, layers, heads = normal(4, 4), normal(4, 3, 4, seed=1), Heads()
    guides = heads.project(layers).detach()
    total = 0.0
    for i in range(4):
        others = sum(math.exp(cosine(anchor[i], guides[m, k]) / 0.2) for m in range(4) if m != i for k in range(3))
        for k in range(3):
            own = math.exp(cosine(anchor[i], guides[i, k]) / 0.2)
            total -= math.log(own / (own + others)) / 12
    assert loss_of(term_of(heads), anchor, layers).item() == pytest.approx(total, rel=1e-10)


def test_one_layer_is_info_nce_with_that_layers_rows():
    anchor, layers = normal(5, 4), normal(5, 1, 4, seed=1)
    ids = torch.arange(5)
    first, second = (Rows(embedding=rows, ids=ids, text=ids) for rows in (anchor, layers[:, 0]))
    table = in_batch_table(first, second)
    batch = Batch(views={"anchor": first, "positive": second}, local=slice(0, 5), tokens={}, encoded={})
    expected = InfoNCE(temperature=0.2)(table, batch).item()
    assert loss_of(term_of(NoHeads()), anchor, layers).item() == pytest.approx(expected, rel=1e-10)


def test_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    layers = torch.stack([eye, eye], dim=1)  # both layers of both texts are the anchors
    loss = loss_of(term_of(NoHeads(), temperature=1.0), eye, layers)
    assert loss.item() == pytest.approx(math.log(1 + 2 / math.e))


def test_gradients_reach_anchors_and_heads_and_not_the_guides():
    anchor, layers, heads = normal(3, 4).requires_grad_(), normal(3, 2, 4, seed=1), Heads()
    term = term_of(heads)
    assert torch.autograd.gradcheck(lambda rows: loss_of(term, rows, layers), (anchor,))
    weight = heads.head.weight

    def of_heads(value):
        return loss_of(term_of(Replaced(value)), anchor.detach(), layers)

    class Replaced(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def project(self, pooled, *, exported=False):
            return pooled @ self.value.T + heads.head.bias.detach()

    assert torch.autograd.gradcheck(of_heads, (weight.detach().clone().requires_grad_(),))
    loss_of(term, anchor, layers).backward()
    assert weight.grad.any()
    assert not list(term.parameters())  # the heads are trained once, as the encoder's


def test_order_of_examples_does_not_matter():
    anchor, layers, order = normal(4, 4), normal(4, 3, 4, seed=1), [2, 0, 3, 1]
    term = term_of(Heads())
    before, after = loss_of(term, anchor, layers), loss_of(term, anchor[order], layers[order])
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_one_text_narrower_rows_and_half_precision():
    term = term_of(NoHeads(), temperature=0.01)
    assert loss_of(term, normal(1, 4), normal(1, 3, 4)).item() == 0
    narrow = loss_of(term, normal(3, 2), normal(3, 2, 4, seed=1))
    assert narrow.item() == pytest.approx(loss_of(term, normal(3, 2), normal(3, 2, 4, seed=1)[..., :2]).item())
    half = loss_of(term, normal(3, 4).bfloat16(), normal(3, 2, 4, seed=1).float())
    assert half.dtype == torch.float32
    assert torch.isfinite(half)


def test_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature"):
        SelfGuided(temperature=0.0)
