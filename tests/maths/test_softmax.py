"""Log-sums over parts of a row: exact, and finite in value and gradient where a row has no part."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentemb.maths.softmax import (
    live_pairs,
    masked_logsumexp,
    mean_over,
    mean_over_positives,
    positive_share,
    table_logits,
)
from sentemb.types import PairScores, Rows

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]], dtype=torch.float64)
MASK = torch.tensor([[True, False, True], [False, False, False]])


def table(sim, log_weight):
    n, m = sim.shape
    anchor, candidate = (Rows(embedding=torch.zeros(k, 1), ids=torch.arange(k), text=torch.arange(k)) for k in (n, m))
    return PairScores(
        sim=sim, positive=torch.eye(n, m, dtype=torch.bool), log_weight=log_weight, anchor=anchor, candidate=candidate
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-700, 700), st.booleans()), min_size=1, max_size=6))
def test_masked_logsumexp_is_the_log_of_the_sum(entries):
    values = torch.tensor([[value for value, _ in entries]], dtype=torch.float64)
    mask = torch.tensor([[chosen for _, chosen in entries]])
    chosen = [value for value, is_chosen in entries if is_chosen]
    found = masked_logsumexp(values, mask).item()
    if not chosen:
        assert found == -math.inf
    else:
        top = max(chosen)
        assert found == pytest.approx(top + math.log(sum(math.exp(value - top) for value in chosen)), abs=1e-9)


def test_empty_rows_have_the_given_value_and_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    result = masked_logsumexp(logits, MASK, empty=5.0)
    result.sum().backward()
    assert result[1].item() == 5.0
    assert (logits.grad[1] == 0).all()
    assert logits.grad[0, 1] == 0
    assert logits.grad[0].sum().item() == pytest.approx(1.0)


def test_masked_entries_may_be_infinite_without_harm():
    logits = LOGITS.clone()
    logits[0, 1] = -math.inf
    logits.requires_grad_()
    masked_logsumexp(logits, MASK)[0].backward()
    assert torch.isfinite(logits.grad).all()


def with_positives(share=None, removed=()):
    weight = torch.zeros_like(LOGITS)
    for pair in removed:
        weight[pair] = -math.inf
    return replace(table(LOGITS, weight), positive=MASK, share=share)


def test_mean_over_positives():
    assert mean_over_positives(LOGITS, with_positives()).tolist() == [0.75, -math.inf]


def test_shares_are_those_of_live_positives_and_sum_to_one():
    share = torch.tensor([[3.0, 5.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)  # negatives' shares do not count
    assert positive_share(with_positives()).tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]
    assert positive_share(with_positives(share)).tolist() == [[0.75, 0.0, 0.25], [0.0, 0.0, 0.0]]
    assert positive_share(with_positives(share, removed=[(0, 0)])).tolist()[0] == [0.0, 0.0, 1.0]
    assert mean_over_positives(LOGITS, with_positives(share))[0].item() == pytest.approx(0.75 * 1.0 + 0.25 * 0.5)


def test_a_row_whose_positives_have_no_share_divides_equally():
    share = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert positive_share(with_positives(share)).tolist()[0] == [0.5, 0.0, 0.5]


def test_the_mean_of_a_row_without_positives_has_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    mean_over_positives(logits, with_positives())[0].backward()
    assert logits.grad.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]


def test_scale_divides_a_rows_logits():
    scaled = replace(table(LOGITS, torch.zeros_like(LOGITS)), scale=torch.tensor([2.0, 0.5], dtype=torch.float64))
    assert table_logits(scaled, 0.1).tolist()[0] == pytest.approx([5.0, -10.0, 2.5])
    assert table_logits(scaled, 0.1).tolist()[1] == pytest.approx([60.0, 0.0, -20.0])


def test_mean_over_rows_ignores_the_others_even_where_they_are_infinite():
    values = torch.tensor([2.0, math.inf, 4.0], requires_grad=True)
    mean = mean_over(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == 3.0
    assert values.grad.tolist() == [0.5, 0.0, 0.5]
    assert mean_over(values, torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_logits_divide_by_temperature_and_add_the_weight_in_float32():
    sim, weight = torch.tensor([[0.5, 0.25]]).bfloat16(), torch.tensor([[0.0, -math.inf]])
    logits = table_logits(table(sim, weight), 0.05)
    assert logits.dtype == torch.float32
    assert logits.tolist() == [[10.0, -math.inf]]


def test_live_pairs_are_those_with_a_weight():
    weight = torch.tensor([[0.0, -math.inf], [-100.0, 3.0]])
    assert live_pairs(table(torch.zeros(2, 2), weight)).tolist() == [[True, False], [True, True]]
