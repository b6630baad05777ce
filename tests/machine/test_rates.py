"""Products by oneDNN against PyTorch's own, and which one is chosen."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from sentemb.machine import rates as product
from sentemb.machine.rates import Rates, has_fast_bfloat16, is_onednn_faster, linear, rates


@pytest.fixture
def machine(monkeypatch):
    """A machine on which oneDNN is the faster library and bfloat16 is not fast."""
    monkeypatch.setattr(product, "rates", lambda: Rates(blas_float32=100.0, onednn_float32=200.0, bfloat16=150.0))


@pytest.mark.parametrize("shape", [(7, 12), (3, 5, 12), (1, 12), (0, 12)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_and_its_gradients(machine, shape, has_bias):
    generator = torch.Generator().manual_seed(1)

    def draw(*size):
        return torch.randn(size, generator=generator).requires_grad_()

    x, weight, bias = draw(*shape), draw(9, 12), draw(9) if has_bias else None
    outs = [f(x, weight, bias) for f in (linear, F.linear)]
    assert (type(outs[0].grad_fn).__name__ == "_LinearBackward") != (shape[0] == 0)
    upstream = torch.randn(outs[0].shape, generator=generator)
    wanted = [value for value in (x, weight, bias) if value is not None]
    ours, plain = (torch.autograd.grad(out, wanted, upstream) for out in outs)
    for one, other in zip((outs[0], *ours), (outs[1], *plain), strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-5)


def test_what_needs_no_gradient_gets_none(machine):
    x, weight = torch.randn(4, 6), torch.randn(5, 6, requires_grad=True)
    linear(x, weight).sum().backward()
    assert torch.allclose(weight.grad, x.sum(0).expand(5, 6), atol=1e-5)
    with torch.no_grad():
        assert linear(x, weight).requires_grad is False


def test_other_formats_and_autocast_take_pytorchs_path(machine):
    double = linear(torch.randn(2, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64))
    assert double.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.randn(2, 4), torch.randn(3, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize(("blas", "onednn", "bfloat16", "is_half", "is_onednn"), [
    (100.0, 110.0, 90.0, False, False),  # two equal libraries, bfloat16 without a unit of its own
    (100.0, 230.0, 450.0, True, True),
    (100.0, 0.0, 450.0, True, False),
])
def test_the_choice(monkeypatch, blas, onednn, bfloat16, is_half, is_onednn):
    measured = Rates(blas_float32=blas, onednn_float32=onednn, bfloat16=bfloat16)
    monkeypatch.setattr(product, "rates", lambda: measured)
    assert (has_fast_bfloat16(), is_onednn_faster()) == (is_half, is_onednn)


def test_a_machine_is_timed_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path))
    rates.cache_clear()
    first = rates()
    assert first.blas_float32 > 0
    kept, = (tmp_path / "machine").iterdir()
    assert json.loads(kept.read_text())["bfloat16"] == first.bfloat16
    found = {"blas_float32": 1.0, "onednn_float32": 2.0, "bfloat16": 3.0}
    kept.write_text(json.dumps(found))
    rates.cache_clear()
    assert rates() == Rates(**found)
    for other in ("[", json.dumps(dict(list(found.items())[:2]))):  # damaged, or an older release's: timed again
        kept.write_text(other)
        rates.cache_clear()
        assert rates() != Rates(**found)
    rates.cache_clear()
