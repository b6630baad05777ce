"""Poolings against loops written from their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentemb.encoder.poolings import TOKEN_POOLINGS, make_pooling
from sentemb.errors import PartError


def by_loop(mode: str, rows: list[torch.Tensor], skip: int = 0) -> torch.Tensor:
    """Every row's own tokens, one after the other; ``skip`` leading tokens are left out, positions still count."""
    out = []
    for row in rows:
        tokens = list(enumerate(row))[skip:]
        if mode == "cls":
            out.append(tokens[0][1])
        elif mode == "last":
            out.append(tokens[-1][1])
        elif mode == "max":
            out.append(torch.stack([token for _, token in tokens]).max(0).values)
        else:
            weights = [position + 1 if mode == "weighted_mean" else 1 for position, _ in tokens]
            total = sum(w * token for w, (_, token) in zip(weights, tokens, strict=True))
            divisor = sum(weights) ** 0.5 if mode == "mean_sqrt_len" else sum(weights)
            out.append(total / divisor)
    return torch.stack(out)


def padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows)) + 1
    hidden, mask = torch.full((len(rows), longest, rows[0].shape[1]), 1e4), torch.zeros(len(rows), longest).long()
    for i, row in enumerate(rows):
        hidden[i, : len(row)], mask[i, : len(row)] = row, 1
    return hidden, mask


@pytest.mark.parametrize("mode", TOKEN_POOLINGS)
@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(3, 9), min_size=1, max_size=5), skip=st.integers(0, 2), seed=st.integers(0, 99))
def test_every_mode_equals_its_loop(mode: str, lengths: list[int], skip: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(length, 4, generator=generator) for length in lengths]
    hidden, mask = padded(rows)
    mask[:, :skip] = 0
    torch.testing.assert_close(make_pooling(mode)(hidden, mask), by_loop(mode, rows, skip), rtol=1e-5, atol=1e-5)


def test_mean_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert make_pooling("mean")(hidden, mask).tolist() == [[2.0, 4.0]]
    assert make_pooling("weighted_mean")(hidden, mask).tolist() == [[pytest.approx(7 / 3), pytest.approx(14 / 3)]]
    assert make_pooling("max")(hidden, mask).tolist() == [[3.0, 6.0]]


def test_mean_words_leaves_the_first_and_the_last_token_out() -> None:
    rows = [torch.randn(length, 4) for length in (2, 3, 6)]
    pooled = make_pooling("mean_words")(*padded(rows))
    expected = [rows[0].mean(0), rows[1][1], rows[2][1:5].mean(0)]
    torch.testing.assert_close(pooled, torch.stack(expected), rtol=1e-5, atol=1e-5)
    hidden, mask = padded(rows)
    mask[:, :2] = 0  # a prompt's tokens, [CLS] among them, are left out already
    torch.testing.assert_close(make_pooling("mean_words")(hidden, mask)[2], rows[2][2:5].mean(0), rtol=1e-5, atol=1e-5)


def test_bfloat16_sums_run_in_float32() -> None:
    hidden = torch.ones(1, 1000, 2, dtype=torch.bfloat16)
    pooled = make_pooling("mean")(hidden, torch.ones(1, 1000, dtype=torch.long))
    assert pooled.dtype == torch.bfloat16
    assert pooled.tolist() == [[1.0, 1.0]]  # bfloat16 counts no further than 256


@pytest.mark.parametrize(("name", "value"), [("first_last_mean", 500.5), ("last2_mean", 550.0)])
def test_layered_poolings(name: str, value: float) -> None:
    pooling = make_pooling(name)
    assert pooling.bind(3, 3) == 3
    layers = [torch.full((1, 2, 3), float(value)) for value in (1, 10, 100, 1000)]
    assert pooling.pool_layers(layers, torch.ones(1, 2).long()).unique().tolist() == [value]


def test_joined_poolings_are_as_wide_as_all() -> None:
    pooling = make_pooling("cls+mean")
    assert pooling.bind(3, 2) == 6
    hidden = torch.arange(6.0).view(1, 2, 3)
    assert pooling(hidden, torch.ones(1, 2).long()).tolist() == [[0, 1, 2, 1.5, 2.5, 3.5]]
    with pytest.raises(PartError, match="last layer only"):
        make_pooling("cls+last2_mean")


def test_an_unknown_pooling_names_the_known() -> None:
    with pytest.raises(PartError, match=r"mean_sqrt_len.*did you mean mean"):
        make_pooling("meen")


def test_gradients_reach_only_real_tokens() -> None:
    hidden = torch.randn(2, 4, 3, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    for mode in TOKEN_POOLINGS:
        hidden.grad = None
        make_pooling(mode)(hidden, mask).sum().backward()
        assert hidden.grad is not None
        assert hidden.grad[0, 2:].abs().max() == 0
        assert hidden.grad[1].abs().max() > 0
