"""group_whitening against loops: what whitens, what the gradient sees, and that every view has a draw of its own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder
from sentemb.companions import Momentum
from sentemb.encoder.heads import GroupWhitening
from sentemb.errors import RecipeError
from sentemb.types import Build, Vocabulary


def head_of(groups: int, width: int = 6, eps: float = 1e-5) -> GroupWhitening:
    head = GroupWhitening(groups=groups, eps=eps)
    assert head.bind(width) == width
    return head


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    mixed = torch.randn(d, d, generator=seeded(99), dtype=torch.float64)
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64) @ mixed


def dealt(groups: int, width: int = 6, seed: int = 0) -> list[list[int]]:
    order = torch.randperm(width, generator=seeded(seed)).tolist()
    size = width // groups
    return [order[start : start + size] for start in range(0, width, size)]


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_equals_the_loop(groups: int) -> None:
    x, eps, n = normal(9, 6), 0.3, 9
    whitened = head_of(groups, eps=eps)(x, seeded())
    for dimensions in dealt(groups):
        columns = [[float(x[i, k]) for i in range(n)] for k in dimensions]
        centred = [[value - sum(column) / n for value in column] for column in columns]
        covariance = [[sum(a * b for a, b in zip(one, other, strict=True)) / n for other in centred] for one in centred]
        values, vectors = np.linalg.eigh(np.array(covariance) + eps * np.eye(len(dimensions)))
        root = sum(np.outer(v, v) / math.sqrt(value) for value, v in zip(values, vectors.T, strict=True))
        expected = np.array(centred).T @ root
        np.testing.assert_allclose(whitened[:, dimensions].numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_a_group_has_the_identity_as_covariance_and_a_mean_of_zero(groups: int) -> None:
    whitened = head_of(groups, eps=1e-14)(normal(40, 6), seeded(3))
    torch.testing.assert_close(whitened.mean(dim=0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    for dimensions in dealt(groups, seed=3):
        rows = whitened[:, dimensions]
        expected = torch.eye(len(dimensions), dtype=torch.float64)
        torch.testing.assert_close(rows.T @ rows / 40, expected, rtol=0, atol=1e-8)


def test_groups_of_one_dimension_standardise_and_one_group_does_not_depend_on_the_draw() -> None:
    x = normal(8, 6)
    expected = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head_of(6)(x, seeded(1)), expected)
    torch.testing.assert_close(head_of(1)(x, seeded(1)), head_of(1)(x, seeded(2)))
    assert not torch.allclose(head_of(3)(x, seeded(1)), head_of(3)(x, seeded(2)))


def test_by_hand() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 1.0]], dtype=torch.float64)  # standard deviations 1 and 2
    whitened = head_of(2, width=2, eps=1e-12)(x)
    torch.testing.assert_close(whitened, torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=torch.float64))


def test_order_of_rows_does_not_matter() -> None:
    x, order = normal(7, 6), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(head_of(2)(x[order], seeded()), head_of(2)(x, seeded())[order])


def test_the_gradient_takes_the_root_as_a_constant() -> None:
    head, x = head_of(2), normal(7, 6)
    weight = normal(7, 6, seed=5)
    leaf = x.clone().requires_grad_()
    (head(leaf, seeded()) * weight).sum().backward()
    centred = x - x.mean(dim=0)
    for dimensions in dealt(2):
        rows = centred[:, dimensions]
        values, vectors = torch.linalg.eigh(rows.T @ rows / 7 + 1e-5 * torch.eye(3, dtype=torch.float64))
        through = weight[:, dimensions] @ (vectors @ torch.diag(values**-0.5) @ vectors.T)
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad[:, dimensions], through - through.mean(dim=0))


def test_half_precision_and_equal_rows_are_finite() -> None:
    whitened = head_of(2)(torch.ones(5, 6, dtype=torch.bfloat16), seeded())
    assert whitened.dtype == torch.float32
    assert (whitened == 0).all()


def test_few_distinct_large_rows_are_finite_and_nan_stays_nan() -> None:
    head = GroupWhitening(groups=128)
    head.bind(768)
    rows = 10 * torch.randn(4, 768, generator=seeded()).repeat(16, 1)  # groups of six dimensions have a rank of three
    assert head(rows, seeded()).isfinite().all()
    assert head(torch.full((64, 768), torch.nan), seeded()).isnan().all()


def test_every_view_is_whitened_by_itself_with_a_draw_of_its_own(tiny_bert: Path) -> None:
    module = Encoder.load(tiny_bert, head=[GroupWhitening(groups=8)]).module
    x = torch.randn(3 * 7, 32, generator=seeded())
    whitened = module.project(x, views=3, generator=seeded(4))
    generator, head = seeded(4), GroupWhitening(groups=8)
    expected = torch.cat([head(x[start : start + 7], generator) for start in (0, 7, 14)])
    torch.testing.assert_close(whitened, expected)
    same = module.project(torch.cat([x[:7], x[:7]]), views=2, generator=seeded(4))
    assert not torch.allclose(same[:7], same[7:])
    assert torch.equal(module.project(x, exported=True), x)  # it serves training only


def test_refusals(tiny_bert: Path) -> None:
    with pytest.raises(RecipeError, match="groups = 4, which must divide the width 6"):
        GroupWhitening(groups=4).bind(6)
    with pytest.raises(RecipeError, match="3 dimensions, which 3 examples cannot whiten"):
        head_of(2)(normal(3, 6))
    with pytest.raises(ValueError, match="groups"):
        GroupWhitening(groups=0)
    module = Encoder.load(tiny_bert, head=[GroupWhitening(groups=8)]).module
    vocabulary = Vocabulary(size=9, pad=0, mask=None, special=frozenset())
    build = Build(backbone="", width=32, vocabulary=vocabulary, encoder=module, load_encoder=lambda _: module)
    with pytest.raises(RecipeError, match="companions: momentum encodes single views"):
        Momentum().bind(build)
