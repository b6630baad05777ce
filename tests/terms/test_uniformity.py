"""uniformity against a loop over pairs, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.terms.uniformity import Uniformity
from sentemb.types import Rows


@pytest.fixture
def views(batch_of):
    def make(anchor, positive):
        ids = torch.arange(len(anchor))
        return batch_of(
            len(anchor),
            views={
                "anchor": Rows(embedding=anchor, ids=ids, text=ids),
                "positive": Rows(embedding=positive, ids=ids, text=ids),
            },
        )

    return make


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)


def loop_reference(embedding, sharpness):
    n = len(embedding)
    unit = [row / row.norm() for row in embedding]
    potentials = [
        math.exp(-sharpness * sum(float(a - b) ** 2 for a, b in zip(unit[i], unit[j], strict=True)))
        for i in range(n) for j in range(i + 1, n)
    ]
    return math.log(sum(potentials) / len(potentials))


def test_equals_the_loop(embeddings, views, table_of):
    loss = Uniformity(sharpness=1.5)(table_of(torch.eye(5)), views(*embeddings))
    expected = (loop_reference(embeddings[0], 1.5) + loop_reference(embeddings[1], 1.5)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_hand_worked_two_by_two(views, table_of):
    # right angles: ‖u - v‖² = 2, log e^(-2·2) = -4; opposite directions: ‖u - v‖² = 4, so -8
    anchor, positive = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert Uniformity()(table_of(torch.eye(2)), views(anchor, positive)).item() == pytest.approx(-6.0)
    assert Uniformity(of=["anchor"])(table_of(torch.eye(2)), views(anchor, positive)).item() == pytest.approx(-4.0)


def test_order_of_examples_does_not_matter(embeddings, views, table_of):
    anchor, positive = embeddings
    before = Uniformity()(table_of(torch.eye(5)), views(anchor, positive))
    after = Uniformity()(table_of(torch.eye(5)), views(anchor[[4, 2, 0, 1, 3]], positive))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(embeddings, views, table_of):
    anchor, positive = (tensor.clone().requires_grad_() for tensor in embeddings)
    term = Uniformity()
    assert torch.autograd.gradcheck(lambda a, p: term(table_of(torch.eye(5)), views(a, p)), (anchor, positive))


def test_one_example_alone_gives_zero_and_no_gradient(views, table_of):
    anchor = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = Uniformity()(table_of(torch.eye(1)), views(anchor, anchor.detach()))
    loss.backward()
    assert loss.item() == 0.0
    assert (anchor.grad == 0).all()


def test_bfloat16_embeddings_are_scored_in_float32(embeddings, views, table_of):
    anchor, positive = embeddings.bfloat16()
    loss = Uniformity()(table_of(torch.eye(5)), views(anchor, positive))
    expected = (loop_reference(anchor.double(), 2.0) + loop_reference(positive.double(), 2.0)) / 2
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_needs_the_views_it_reads():
    assert Uniformity(of=["anchor", "negative"]).needs == {"view:anchor", "view:negative"}


@pytest.mark.parametrize(
    ("arguments", "message"), [({"sharpness": 0.0}, "greater than 0"), ({"of": []}, "at least 1 item")]
)
def test_wrong_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        Uniformity(**arguments)
