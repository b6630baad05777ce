"""Similarities: the definitions, precision, and vectors without direction."""

from __future__ import annotations

import pytest
import torch

from sentemb.maths.similarity import at_least_float32, pairwise


def test_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    anchor, candidate = (torch.randn(k, 5, generator=generator, dtype=torch.float64) for k in (3, 4))
    dot, cosine = pairwise(anchor, candidate, "dot"), pairwise(anchor, candidate, "cosine")
    for i in range(3):
        for j in range(4):
            product = sum(float(a) * float(c) for a, c in zip(anchor[i], candidate[j], strict=True))
            assert dot[i, j].item() == pytest.approx(product)
            assert cosine[i, j].item() == pytest.approx(product / (anchor[i].norm() * candidate[j].norm()).item())


def test_half_precision_is_scored_in_float32_also_under_autocast():
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randn(4, 64, generator=generator)
    exact = pairwise(anchor.bfloat16().double(), anchor.bfloat16().double(), "cosine")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pairwise(anchor.bfloat16(), anchor.bfloat16(), "cosine")
    assert found.dtype == torch.float32
    assert (found.double() - exact).abs().max() < 1e-6  # bfloat16 would be 4e-3 off


def test_zero_vectors_are_finite_in_value_and_gradient():
    anchor = torch.zeros(2, 3, requires_grad=True)
    sim = pairwise(anchor, torch.ones(2, 3), "cosine")
    sim.sum().backward()
    assert (sim == 0).all()
    assert torch.isfinite(anchor.grad).all()


@pytest.mark.parametrize(
    ("given", "found"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32, torch.float32),
     (torch.float64, torch.float64)],
)
def test_at_least_float32(given, found):
    assert at_least_float32(torch.ones(1, dtype=given)).dtype == found
