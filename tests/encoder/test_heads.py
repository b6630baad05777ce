"""Heads: what they compute, their shape, and their form as dense layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sentemb.encoder import make_heads
from sentemb.encoder.heads import MLP, PARTS, Dense, Head, LayerNorm, Projector
from sentemb.errors import PartError

OPTIONS: dict[str, dict[str, object]] = {
    "dense": {"out_features": 5, "residual": True}, "group_whitening": {"groups": 4},
}


@pytest.mark.parametrize("name", PARTS)
def test_every_head_is_documented_and_binds(name: str) -> None:
    head = PARTS[name](**OPTIONS.get(name, {}))
    assert PARTS[name].__doc__
    width = head.bind(8)
    assert head(torch.randn(4, 8)).shape == (4, width)


def test_mlp_is_tanh_of_a_linear_map() -> None:
    head = MLP()
    head.bind(2)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, -1.0]]))
        head.linear.bias.copy_(torch.tensor([0.0, 0.5]))
    out = head(torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(out, torch.tensor([[0.76159416, -0.46211716]]))  # tanh(1), tanh(-0.5)


def test_projector_by_formula() -> None:
    torch.manual_seed(0)
    head = Projector()
    head.bind(4)
    x = torch.randn(6, 4)

    def standardised(values: torch.Tensor) -> torch.Tensor:
        return (values - values.mean(0)) / (values.var(0, unbiased=False) + 1e-5).sqrt()

    expected = standardised(standardised(x @ head.first.weight.T).relu() @ head.second.weight.T)
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(head(x)[:3], head(x[:3]))  # rows are coupled


@pytest.mark.parametrize("head", [
    MLP(train_only=False), Projector(train_only=False), Dense(out_features=6, activation="gelu"),
    Dense(out_features=8, activation="identity", residual=True), Dense(out_features=3, bias=False, residual=True),
])
def test_dense_layers_compute_the_same(head: Head) -> None:
    torch.manual_seed(1)
    head.bind(8)
    for _ in range(5):
        head(torch.randn(32, 8) * 2 + 1)  # running statistics
    head.eval()
    x = torch.randn(7, 8)
    layers = head.dense_layers()
    assert layers is not None
    torch.testing.assert_close(nn.Sequential(*layers)(x), head(x), rtol=1e-5, atol=1e-5)


def test_layer_norm_has_no_dense_form() -> None:
    assert LayerNorm().dense_layers() is None


def test_making_heads() -> None:
    made = make_heads(["mlp", {"use": "dense", "out_features": 4}, Projector()])
    assert [type(head) for head in made] == [MLP, Dense, Projector]
    assert make_heads(None) == []
    for wrong, message in (
        ("mpl", "did you mean mlp"), ({"use": "mlp", "depth": 2}, "depth"),
        ({"use": "dense", "out_features": 4, "activation": "tan"}, "must be .identity., .tanh."),
        ({"use": "dense", "out_features": 0}, "out_features"),
    ):
        with pytest.raises(PartError, match=message):
            make_heads(wrong)
