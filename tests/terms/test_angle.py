"""angle against complex numbers in a loop, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch

from sentemb.errors import RecipeError
from sentemb.maths.table import score_table
from sentemb.terms import Angle

SCORES = torch.tensor([0.2, 0.9, 0.2, 1.0])


def rows(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop_reference(anchor, positive, score, temperature):
    value = []
    for u, v in zip(anchor.tolist(), positive.tolist(), strict=True):
        half = len(u) // 2
        z, w = ([complex(x[k], x[k + half]) for k in range(half)] for x in (u, v))
        inner = sum(a * b.conjugate() for a, b in zip(z, w, strict=True))
        value.append(abs(inner.real + inner.imag) / math.hypot(*u) / math.hypot(*v))
    total = 1.0
    for i in range(len(score)):
        for k in range(len(score)):
            if score[i] > score[k]:
                total += math.exp((value[k] - value[i]) / temperature)
    return math.log(total)


def test_equals_the_loop():
    anchor, positive = rows(4, 6, 0), rows(4, 6, 1)
    loss = Angle(temperature=0.3)(anchor, positive, scores=SCORES)
    assert loss.item() == pytest.approx(loop_reference(anchor, positive, SCORES, 0.3), rel=1e-10)


def test_hand_worked_two_by_two():
    # equal vectors have 1; (1, 0) with (0.6, 0.8): |0.6 - 0.8| = 0.2, and log(1 + e^((0.2 - 1)/0.5)) = 0.183901
    anchor = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    positive = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    assert Angle(temperature=0.5)(anchor, positive, scores=torch.tensor([1.0, 0.0])).item() == pytest.approx(
        math.log(1 + math.exp(-1.6)), rel=1e-10
    )


def test_order_of_examples_does_not_matter():
    anchor, positive, order = rows(4, 6, 0), rows(4, 6, 1), [2, 0, 3, 1]
    before = Angle()(anchor, positive, scores=SCORES)
    assert Angle()(anchor[order], positive[order], scores=SCORES[order]).item() == pytest.approx(before.item())


def test_gradcheck():
    term = Angle(temperature=0.4)
    inputs = [rows(4, 4, seed).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(lambda a, b: term(a, b, scores=SCORES), inputs)


@pytest.mark.parametrize("n", [1, 4])
def test_equal_scores_give_zero_and_no_gradient(n):
    anchor = rows(n, 4, 0).requires_grad_()
    loss = Angle()(anchor, rows(n, 4, 1), scores=torch.ones(n))
    loss.backward()
    assert loss.item() == 0
    assert (anchor.grad == 0).all()


def test_bfloat16_is_compared_in_float32():
    loss = Angle()(rows(4, 4, 0).bfloat16(), rows(4, 4, 1).bfloat16(), scores=SCORES)
    assert loss.dtype == torch.float32


def test_odd_widths_and_bad_temperatures_are_refused():
    with pytest.raises(RecipeError, match="3 dimensions are an odd number"):
        Angle()(*score_table(rows(2, 3, 0), rows(2, 3, 1), scores=torch.ones(2)))
    with pytest.raises(ValueError, match="temperature"):
        Angle(temperature=0)
