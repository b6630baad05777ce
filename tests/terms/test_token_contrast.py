"""token_contrast against a loop over pairs of tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from token_batches import IDS, MASK, normal, token_batch

from sentemb.terms import TokenContrast


def test_equals_the_loop(table_of):
    hidden = normal(2, 5, 4)
    share = TokenContrast(margin=0.9)(table_of(torch.eye(2)), token_batch(hidden, normal(2, 4)))
    total, count = 0.0, 0
    for row, length in ((0, 5), (1, 3)):
        for s in range(length):
            for t in range(length):
                if s != t:
                    cosine = float(F.cosine_similarity(hidden[row, s], hidden[row, t], dim=0))
                    total, count = total + max(0.0, 0.9 - 1 + cosine), count + 1
    assert share.count.item() == count == 26
    assert share.total.item() == pytest.approx(total, rel=1e-10)


def test_equal_states_cost_the_margin_and_orthogonal_ones_nothing(table_of):
    same = torch.ones(2, 5, 4)
    share = TokenContrast(margin=0.5)(table_of(torch.eye(2)), token_batch(same, normal(2, 4)))
    assert (share.total / share.count).item() == pytest.approx(0.5)
    apart = torch.eye(5)[None].expand(2, -1, -1)
    assert TokenContrast()(table_of(torch.eye(2)), token_batch(apart, normal(2, 5))).total.item() == 0.0


def test_gradcheck_and_a_text_of_one_token(table_of):
    hidden = normal(2, 5, 4).requires_grad_()
    term, table = TokenContrast(margin=0.9), table_of(torch.eye(2))
    assert torch.autograd.gradcheck(lambda h: term(table, token_batch(h, normal(2, 4))).total, (hidden,))
    mask = torch.tensor([[1, 0, 0, 0, 0]])
    share = term(table_of(torch.eye(1)), token_batch(normal(1, 5, 4), normal(1, 4), ids=IDS[:1], mask=mask))
    assert (share.total.item(), share.count.item()) == (0.0, 0.0)


def test_order_of_texts_does_not_matter_and_half_precision_is_scored_in_float32(table_of):
    hidden = normal(2, 5, 4)
    before = TokenContrast(margin=0.9)(table_of(torch.eye(2)), token_batch(hidden, normal(2, 4)))
    flipped = token_batch(hidden.flip(0).bfloat16(), normal(2, 4), ids=IDS.flip(0), mask=MASK.flip(0))
    after = TokenContrast(margin=0.9)(table_of(torch.eye(2)), flipped)
    assert after.total.dtype == torch.float32
    assert after.total.item() == pytest.approx(before.total.item(), rel=2e-2)


def test_refuses_a_margin_of_zero():
    with pytest.raises(ValueError, match="margin"):
        TokenContrast(margin=0.0)
