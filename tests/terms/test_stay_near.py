"""stay_near against a loop over weights."""

from __future__ import annotations

import pytest
import torch
from token_batches import build_with

from sentemb import EncoderSettings, Recipe, TrainSettings
from sentemb.errors import RecipeError
from sentemb.terms import StayNear


class Module(torch.nn.Module):
    """A backbone of two layers, the first of them frozen, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)).double()
        self.backbone[0].requires_grad_(False)
        self.head = torch.nn.Linear(2, 2).double()


def bound():
    module, term = Module(), StayNear()
    term.bind(build_with(module))
    return module, term.double()


def test_equals_the_loop_and_starts_at_0(table_of, batch_of):
    module, term = bound()
    table, batch = table_of(torch.eye(2)), batch_of()
    assert term(table, batch).item() == 0
    start = [weight.detach().clone() for weight in module.backbone.parameters()]
    with torch.no_grad():
        for weight in module.parameters():
            weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = sum(
        (a - b) ** 2
        for weight, before in list(zip(module.backbone.parameters(), start, strict=True))[2:]
        for a, b in zip(weight.flatten().tolist(), before.flatten().tolist(), strict=True)
    )
    loss = term(table, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    moved, before = module.backbone[1].weight, start[2]
    torch.testing.assert_close(moved.grad, 2 * (moved.detach() - before))
    assert module.head.weight.grad is None


def test_by_hand(table_of, batch_of):
    module, term = bound()
    with torch.no_grad():
        module.backbone[1].bias += torch.tensor([3.0, 4.0])
    assert term(table_of(torch.eye(2)), batch_of()).item() == pytest.approx(25.0)


def test_the_copy_is_no_weight_and_in_no_checkpoint():
    _, term = bound()
    assert not list(term.parameters())
    assert not term.state_dict()


def test_refuses_what_it_cannot_hold(table_of, batch_of):
    with pytest.raises(RecipeError, match="stay_near needs the encoder"):
        StayNear()(table_of(torch.eye(2)), batch_of())
    recipe = Recipe.named("sg-bert-minilm")
    with pytest.raises(ValueError, match=r"train\.shard = true"):
        recipe.replace(train=TrainSettings(shard=True))
    with pytest.raises(ValueError, match=r"encoder\.freeze = true"):
        recipe.replace(encoder=EncoderSettings(backbone="x", freeze=True))
