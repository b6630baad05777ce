"""alignment against a loop over coordinates, by hand, and at its edges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sentemb.errors import NumericError, RecipeError
from sentemb.maths.table import in_batch_table
from sentemb.terms.alignment import Alignment
from sentemb.types import Rows


def rows(embedding, start=0):
    ids = torch.arange(start, start + len(embedding))
    return Rows(embedding=embedding, ids=ids, text=ids)


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_equals_the_loop_over_coordinates(embeddings, batch_of, exponent):
    anchor, positive = embeddings
    table = in_batch_table(rows(anchor), rows(positive))
    total = 0.0
    for i in range(4):
        u, v = anchor[i] / anchor[i].norm(), positive[i] / positive[i].norm()
        total += sum(float(a - b) ** 2 for a, b in zip(u, v, strict=True)) ** (exponent / 2)
    assert Alignment(exponent=exponent)(table, batch_of(4)).item() == pytest.approx(total / 4, rel=1e-10)


def test_hand_worked_two_by_two(table_of, batch_of):
    # squared distances 2 - 2·0.5 = 1 and 2 - 0 = 2; roots 1 and 1.414214
    table = table_of(torch.tensor([[0.5, 0.9], [0.1, 0.0]]))
    assert Alignment()(table, batch_of()).item() == pytest.approx(1.5)
    assert Alignment(exponent=1.0)(table, batch_of()).item() == pytest.approx((1 + 1.414214) / 2, abs=1e-6)


def test_every_positive_counts_and_removed_ones_do_not(table_of, batch_of):
    sim = torch.tensor([[0.5, 0.9], [0.1, 0.0]])
    both = torch.tensor([[True, True], [False, True]])
    assert Alignment()(table_of(sim, both), batch_of()).item() == pytest.approx((1 + 0.2 + 2) / 3)
    removed = torch.tensor([[0.0, -float("inf")], [0.0, 0.0]])
    assert Alignment()(table_of(sim, both, removed), batch_of()).item() == pytest.approx(1.5)


def test_order_of_examples_does_not_matter(embeddings, batch_of):
    anchor, positive = embeddings
    order = [3, 1, 0, 2]
    before = Alignment()(in_batch_table(rows(anchor), rows(positive)), batch_of(4))
    after = Alignment()(in_batch_table(rows(anchor[order]), rows(positive[order])), batch_of(4))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_gradcheck(embeddings, batch_of, exponent):
    def loss(anchor, positive):
        return Alignment(exponent=exponent)(in_batch_table(rows(anchor), rows(positive)), batch_of(4))

    anchor, positive = (tensor.clone().requires_grad_() for tensor in embeddings)
    assert torch.autograd.gradcheck(loss, (anchor, positive))


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_coinciding_embeddings_have_a_finite_gradient(batch_of, exponent):
    anchor = F.normalize(torch.ones(2, 3), dim=-1).requires_grad_()
    loss = Alignment(exponent=exponent)(in_batch_table(rows(anchor), rows(anchor.detach())), batch_of())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-3)
    assert torch.isfinite(anchor.grad).all()


def test_anchor_without_a_positive_is_infinite_and_diagnosed(table_of, batch_of):
    table = table_of(torch.eye(2), torch.tensor([[True, False], [False, False]]))
    assert Alignment()(table, batch_of()).item() == float("inf")
    with pytest.raises(NumericError, match="alignment, step 7: every positive of example 101"):
        Alignment().diagnose(table, batch_of())


def test_one_example_and_bfloat16(table_of, batch_of):
    loss = Alignment()(table_of(torch.tensor([[0.5]]).bfloat16(), log_weight=torch.zeros(1, 1)), batch_of(1))
    assert loss.dtype == torch.float32
    assert loss.item() == 1.0


def test_dot_products_are_refused(embeddings, batch_of):
    with pytest.raises(RecipeError, match=r'similarity = "dot", allowed: cosine'):
        Alignment()(in_batch_table(rows(embeddings[0]), rows(embeddings[1]), "dot"), batch_of(4))


def test_exponent_must_be_positive():
    with pytest.raises(ValueError, match="greater than 0"):
        Alignment(exponent=0.0)
