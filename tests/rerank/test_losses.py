"""The losses of rerankers against loops in plain floats."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.rerank.losses import PARTS, ListContrast, ListLogits, MarginError, PairCrossEntropy


def lists(sizes=(4, 2, 3), seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(sizes), max(sizes), dtype=torch.float64, generator=generator)
    is_there = torch.arange(max(sizes))[None, :] < torch.tensor(sizes)[:, None]
    teacher = torch.randn(logits.shape, dtype=torch.float64, generator=generator)
    return ListLogits(logits=logits, is_there=is_there, teacher=teacher, **options)


def rows_of(given):
    for logits, there, teacher in zip(given.logits, given.is_there, given.teacher, strict=True):
        yield [(float(z), float(t)) for z, is_there, t in zip(logits, there, teacher, strict=True) if is_there]


def test_bce_by_loop():
    given, total, count = lists(), 0.0, 0
    for row in rows_of(given):
        for number, (z, _) in enumerate(row):
            probability = 1 / (1 + math.exp(-z))
            total -= math.log(probability if number == 0 else 1 - probability)
            count += 1
    assert float(PairCrossEntropy()(given)) == pytest.approx(total / count, abs=1e-12)


def test_list_by_loop():
    given = lists()
    each = [-row[0][0] + math.log(sum(math.exp(z) for z, _ in row)) for row in rows_of(given)]
    assert float(ListContrast()(given)) == pytest.approx(sum(each) / len(each), abs=1e-12)


def test_margin_by_loop():
    given = lists()
    errors = [(row[0][0] - z - (row[0][1] - t)) ** 2 for row in rows_of(given) for z, t in row[1:]]
    assert float(MarginError()(given)) == pytest.approx(sum(errors) / len(errors), abs=1e-12)


def test_by_hand():
    given = ListLogits(logits=torch.tensor([[0.0, 0.0]]), is_there=torch.ones(1, 2, dtype=torch.bool),
                       teacher=torch.tensor([[3.0, 1.0]]))
    assert float(PairCrossEntropy()(given)) == pytest.approx(math.log(2))
    assert float(ListContrast()(given)) == pytest.approx(math.log(2))
    assert float(MarginError()(given)) == pytest.approx(4)


def test_a_list_of_two_is_the_cross_entropy_of_the_difference():
    given = lists(sizes=(2, 2, 2))
    difference = given.logits[:, :1] - given.logits[:, 1:]
    alone = ListLogits(logits=difference, is_there=torch.ones_like(difference, dtype=torch.bool))
    assert float(ListContrast()(given)) == pytest.approx(float(PairCrossEntropy()(alone)), abs=1e-12)


@pytest.mark.parametrize("use", PARTS)
def test_order_and_padding_do_not_matter(use):
    loss, given = PARTS[use](), lists()
    columns = torch.tensor([0, 3, 1, 2])
    turned = ListLogits(logits=given.logits[:, columns], is_there=given.is_there[:, columns],
                        teacher=given.teacher[:, columns])
    assert float(loss(turned)) == pytest.approx(float(loss(given)), abs=1e-12)
    padding = torch.full((3, 2), 1e6, dtype=torch.float64)
    padded = ListLogits(
        logits=torch.cat([given.logits, padding], dim=1), teacher=torch.cat([given.teacher, -padding], dim=1),
        is_there=torch.cat([given.is_there, torch.zeros(3, 2, dtype=torch.bool)], dim=1),
    )
    assert float(loss(padded)) == pytest.approx(float(loss(given)), abs=1e-12)


@pytest.mark.parametrize("use", PARTS)
def test_gradients(use):
    loss, given = PARTS[use](), lists()

    def value(logits):
        return loss(ListLogits(logits=logits, is_there=given.is_there, teacher=given.teacher))

    assert torch.autograd.gradcheck(value, (given.logits.clone().requires_grad_(),))
    logits = given.logits.clone().requires_grad_()
    value(logits).backward()
    assert (logits.grad[~given.is_there] == 0).all()


def test_gradient_weights_that_the_documentation_states():
    given = lists(sizes=(3,))
    logits = given.logits.clone().requires_grad_()
    ListContrast()(ListLogits(logits=logits, is_there=given.is_there)).backward()
    share = given.logits.softmax(dim=1)
    assert torch.allclose(logits.grad, share - torch.tensor([[1.0, 0, 0]], dtype=torch.float64))
    logits = given.logits.clone().requires_grad_()
    PairCrossEntropy()(ListLogits(logits=logits, is_there=given.is_there)).backward()
    assert torch.allclose(3 * logits.grad, given.logits.sigmoid() - torch.tensor([[1.0, 0, 0]], dtype=torch.float64))


def test_bfloat16_and_a_single_list():
    given = lists(sizes=(5,))
    for loss in PARTS.values():
        exact = float(loss()(given))
        coarse = loss()(ListLogits(logits=given.logits.bfloat16(), is_there=given.is_there,
                                   teacher=given.teacher.bfloat16()))
        assert float(coarse) == pytest.approx(exact, rel=0.05)
