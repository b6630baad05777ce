"""composed: the mean of pooled rows through the heads, against a loop."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import contrast
from torch import nn

from sentemb.edits import Composed, Given
from sentemb.encoder.heads import MLP, GroupWhitening, Projector
from sentemb.errors import RecipeError
from sentemb.maths.similarity import pairwise
from sentemb.types import Build, Vocabulary

OF = ("positive", "part_2")


class Heads(nn.Module):
    """A sentence module of the given heads."""

    def __init__(self, *heads, width=4):
        super().__init__()
        self.heads = nn.ModuleList(heads)
        for head in heads:
            head.bind(width)
        self.double()

    def project(self, pooled, *, exported=False):
        for head in self.heads:
            pooled = head(pooled)
        return pooled


def bound(encoder, **settings):
    vocabulary = Vocabulary(size=9, pad=0, mask=None, special=frozenset())
    edit = Composed(**settings)
    edit.bind(Build(backbone="", width=4, vocabulary=vocabulary, encoder=encoder, load_encoder=lambda _: encoder))
    return edit


def pooled_rows(n=3, d=4, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, d, generator=generator, dtype=torch.float64) for name in OF}


def test_equals_the_loop_and_keeps_what_is_known(make_table, make_batch, make_rows):
    encoder, table, pooled = Heads(MLP()), make_table(3, label=[0, 1, 1]), pooled_rows()
    batch = make_batch(views={"negative_1": make_rows(3, seed=7)}, pooled=pooled)
    table = Given(weight=2.0)(table, batch)
    edited = bound(encoder)(table, batch)
    weight, bias = encoder.heads[0].linear.weight.tolist(), encoder.heads[0].linear.bias.tolist()
    for i in range(3):
        mean = [(float(a) + float(b)) / 2 for a, b in zip(*(pooled[name][i] for name in OF), strict=True)]
        through = [math.tanh(sum(w * x for w, x in zip(row, mean, strict=True)) + b)
                   for row, b in zip(weight, bias, strict=True)]
        assert edited.candidate.embedding[i].tolist() == pytest.approx(through)
    assert torch.equal(edited.candidate.embedding[3:], table.candidate.embedding[3:])
    torch.testing.assert_close(edited.sim, pairwise(edited.anchor.embedding, edited.candidate.embedding, "cosine"))
    assert torch.equal(edited.positive, table.positive)
    assert torch.equal(edited.log_weight, table.log_weight)
    assert edited.candidate.ids[:3].tolist() == [0, 1, 2]
    assert edited.candidate.text[:3].tolist() == [-1, -1, -1]
    assert table.candidate.text[:3].tolist() == [1000, 1001, 1002]


def test_without_a_head_it_is_the_mean_of_embeddings_by_hand(make_table, make_batch):
    pooled = {"positive": torch.tensor([[2.0, 0.0], [0.0, 4.0]]), "part_2": torch.tensor([[0.0, 2.0], [0.0, 2.0]])}
    table = make_table(2, 2, dtype=torch.float32)
    edited = bound(Heads())(table, make_batch(pooled=pooled))
    assert edited.candidate.embedding.tolist() == [[1.0, 1.0], [0.0, 3.0]]


def test_parts_equal_to_the_sentence_give_a_cosine_of_one(make_table, make_batch):
    encoder, pooled = Heads(MLP()), pooled_rows()
    pooled["part_2"] = pooled["positive"]
    table = make_table(3)
    table = replace(table, anchor=replace(table.anchor, embedding=encoder.project(pooled["positive"]).detach()))
    edited = bound(encoder)(table, make_batch(pooled=pooled))
    torch.testing.assert_close(edited.sim.diagonal(), torch.ones(3, dtype=torch.float64))


def test_order_of_examples_does_not_matter(make_table, make_batch):
    encoder, table, pooled = Heads(MLP()), make_table(4), pooled_rows(4)
    order = torch.tensor([2, 0, 3, 1])
    turned = replace(table, anchor=replace(table.anchor, embedding=table.anchor.embedding[order]))
    loss = contrast(bound(encoder)(table, make_batch(pooled=pooled)))
    other = {name: rows[order] for name, rows in pooled.items()}
    assert contrast(bound(encoder)(turned, make_batch(pooled=other))).item() == pytest.approx(loss.item(), rel=1e-12)


def test_gradient_reaches_both_parts_and_the_heads(make_table, make_batch):
    encoder, table = Heads(MLP()), make_table(3)
    edit = bound(encoder)

    def loss(first, second):
        return contrast(edit(table, make_batch(pooled={"positive": first, "part_2": second})))

    rows = [one.requires_grad_() for one in pooled_rows().values()]
    assert torch.autograd.gradcheck(loss, rows)
    loss(*rows).backward()
    assert encoder.heads[0].linear.weight.grad.abs().sum() > 0
    assert not list(edit.parameters())  # the heads are the encoder's


def test_edges_and_refusals(make_table, make_batch):
    half = {name: rows[:1].bfloat16() for name, rows in pooled_rows().items()}
    edited = bound(Heads().bfloat16())(make_table(1, dtype=torch.bfloat16), make_batch(pooled=half))
    assert edited.sim.dtype == edited.candidate.embedding.dtype == torch.float32
    for encoder in (Heads(Projector()), Heads(GroupWhitening(groups=2)), nn.Sequential(nn.BatchNorm1d(4))):
        with pytest.raises(RecipeError, match="couple the rows"):
            bound(encoder)
    with pytest.raises(ValueError, match="of"):
        Composed(of=["positive"])
    assert Composed().needs == {"pooled", "view:positive", "view:part_2"}
