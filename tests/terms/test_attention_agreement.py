"""attention_agreement against a loop over texts, heads, layers and cells."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sentemb import Encoder, Recipe, TrainSettings
from sentemb.errors import RecipeError
from sentemb.terms import AttentionAgreement
from sentemb.terms.attention_agreement import mutual_information
from sentemb.types import Batch, Encoded, Rows, Tokens

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def maps_of(seed, *, layers=4, texts=2, heads=3, t=4, dropped=0.2):
    """Random attention maps; some cells are dropped out."""
    generator = torch.Generator().manual_seed(seed)
    shape = (texts, heads, t, t)
    maps = [torch.randn(shape, generator=generator, dtype=torch.float64).softmax(dim=3) for _ in range(layers)]
    return [one * (torch.rand(shape, generator=generator) >= dropped) for one in maps]


def batch_of(first, second, mask=MASK, second_mask=None):
    ids = torch.arange(len(mask))
    rows = Rows(embedding=torch.zeros(len(mask), 2), ids=ids, text=ids)
    masks = {"anchor": mask, "positive": mask if second_mask is None else second_mask}
    return Batch(
        views={"anchor": rows, "positive": rows}, local=slice(0, len(mask)),
        tokens={view: Tokens(input_ids=one, attention_mask=one) for view, one in masks.items()},
        encoded={view: Encoded(pooled=torch.zeros(len(mask), 2), attentions=tuple(maps))
                 for view, maps in (("anchor", first), ("positive", second))},
    )


def loop(first, second, layers, mask=MASK):
    """Minus the information of every text, head and place in the pairs."""
    found = []
    for i, length in enumerate(mask.sum(dim=1).tolist()):
        for k in range(first[0].shape[1]):
            for m in (0, 1):
                x, y, cells = [], [], 0
                for layer in range(layers[0] + m, layers[1], 2):
                    for q in range(length):
                        for key in range(length):
                            a, b = first[layer][i, k, q, key].item(), second[layer][i, k, q, key].item()
                            cells += 1
                            if a > 0 and b > 0:
                                x.append(math.log(a))
                                y.append(math.log(b))
                mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
                product = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
                squares = sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y)
                rho2 = min(product**2 / squares, 1 - 1e-6)
                found.append(0.5 * math.log(1 - rho2) * (len(x) / cells) ** 2)
    return found


@pytest.mark.parametrize("layers", [(0, 2), (0, 4), (2, 4), (1, 3)])
def test_equals_the_loop(table_of, layers):
    first, second = maps_of(0), maps_of(1)
    share = AttentionAgreement(layers=layers)(table_of(torch.eye(2)), batch_of(first, second))
    expected = loop(first, second, layers)
    assert share.count.item() == len(expected) == 2 * 3 * 2
    assert share.total.item() == pytest.approx(sum(expected), rel=1e-9)


def test_by_hand(table_of):
    """ρ = 1/2 of three cells: logs (0, 1, 2) and (0, 2, 1)."""
    mask = torch.tensor([[1, 1]])
    first = [torch.tensor([[[[1.0, math.e], [math.e**2, 0.0]]]], dtype=torch.float64)] * 2
    second = [torch.tensor([[[[1.0, math.e**2], [math.e, 5.0]]]], dtype=torch.float64)] * 2
    share = AttentionAgreement(layers=(0, 2))(table_of(torch.eye(1)), batch_of(first, second, mask))
    assert (share.total / share.count).item() == pytest.approx(0.5 * math.log(0.75) * (3 / 4) ** 2)


def test_equal_maps_reach_the_bound_and_powers_change_nothing(table_of):
    maps = maps_of(0, dropped=0.0)
    share = AttentionAgreement(layers=(0, 4))(table_of(torch.eye(2)), batch_of(maps, maps))
    assert (share.total / share.count).item() == pytest.approx(0.5 * math.log(1e-6), rel=1e-6)
    first, second = maps_of(0), maps_of(1)
    plain = AttentionAgreement(layers=(0, 4))(table_of(torch.eye(2)), batch_of(first, second))
    powers = AttentionAgreement(layers=(0, 4))(table_of(torch.eye(2)), batch_of([x**3 for x in first], second))
    assert powers.total.item() == pytest.approx(plain.total.item(), rel=1e-9)


def test_padding_changes_nothing(table_of):
    first, second = maps_of(0), maps_of(1)
    term, table = AttentionAgreement(layers=(0, 4)), table_of(torch.eye(2))
    before = term(table, batch_of(first, second))
    for maps in (first, second):
        for layer in maps:
            layer[1, :, 3] = 0.7
            layer[1, :, :, 3] = 0.2
    assert term(table, batch_of(first, second)).total.item() == before.total.item()
    wide = [torch.nn.functional.pad(layer, (0, 2, 0, 2), value=0.1) for layer in first]
    mask = torch.nn.functional.pad(MASK, (0, 2))
    assert term(table, batch_of(wide, second, mask, MASK)).total.item() == pytest.approx(before.total.item(), rel=1e-12)


def test_gradcheck(table_of):
    first, second = (maps_of(seed, heads=1, layers=2) for seed in (0, 1))

    def loss(a, b):
        return AttentionAgreement(layers=(0, 2))(table_of(torch.eye(2)), batch_of([a, first[1]], [second[0], b])).total

    start = (first[0] + 0.01).requires_grad_(), (second[1] + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(loss, start)


def test_order_of_texts_does_not_matter_and_half_precision_is_computed_in_float32(table_of):
    first, second = maps_of(0), maps_of(1)
    term, table = AttentionAgreement(layers=(0, 4)), table_of(torch.eye(2))
    before = term(table, batch_of(first, second))
    flipped = [[layer.flip(0).bfloat16() for layer in maps] for maps in (first, second)]
    after = term(table, batch_of(*flipped, MASK.flip(0)))
    assert after.total.dtype == torch.float32
    assert after.total.item() == pytest.approx(before.total.item(), rel=2e-2)


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_maps_that_do_not_vary_give_0_and_no_gradient(table_of, value):
    first = [torch.full((2, 3, 4, 4), value, requires_grad=True)] * 2
    share = AttentionAgreement(layers=(0, 2))(table_of(torch.eye(2)), batch_of(first, maps_of(1)))
    share.total.backward()
    assert share.total.item() == 0
    assert not first[0].grad.any()


def test_maps_of_a_real_module_are_those_after_dropout(tiny_bert: Path, table_of):
    module = Encoder.load(tiny_bert).module.train()
    ids = torch.randint(5, 60, (2, 6), generator=torch.Generator().manual_seed(0))
    tokens = Tokens(input_ids=ids, attention_mask=torch.ones_like(ids))
    torch.manual_seed(0)
    encoded = {view: module(tokens, attentions=True) for view in ("anchor", "positive")}
    maps = torch.stack(encoded["anchor"].attentions)
    assert 0.05 < (maps == 0).double().mean() < 0.15  # dropout of 0.1
    rows = Rows(embedding=torch.zeros(2, 2), ids=torch.arange(2), text=torch.arange(2))
    batch = Batch(
        views={"anchor": rows, "positive": rows}, local=slice(0, 2), tokens=dict.fromkeys(encoded, tokens),
        encoded=encoded,
    )
    share = AttentionAgreement(layers=(0, 2))(table_of(torch.eye(2)), batch)
    share.total.backward()
    assert share.count.item() == 2 * 4 * 2
    query = module.backbone.encoder.layer[0].attention.self.query.weight.grad
    assert torch.isfinite(query).all()
    assert query.any()


def test_refuses_layers_without_pairs_and_layers_that_are_not_there(table_of):
    for layers, words in (((2, 2), "layers"), ((0, 3), "2, 4"), ((-1, 3), "layers"), ((1,), "layers")):
        with pytest.raises(ValueError, match=words):
            AttentionAgreement(layers=layers)
    with pytest.raises(RecipeError, match=r"layers = \[7, 11\], but the backbone has 4 layers"):
        AttentionAgreement()(table_of(torch.eye(2)), batch_of(maps_of(0), maps_of(1)))
    with pytest.raises(ValueError, match=r"leave out train\.shard = true"):
        Recipe.named("micse-minilm").replace(train=TrainSettings(shard=True))


@pytest.mark.parametrize("gap", [80.0, 95.0, 110.0])
def test_weights_near_the_smallest_numbers_have_finite_gradients(gap):
    generator = torch.Generator().manual_seed(3)
    logits = [torch.randn(1, 2, 2, 1, 6, 6, generator=generator) for _ in range(2)]
    logits[0][0, 0, 0, 0, 2, 3] -= gap
    logits[0].requires_grad_()
    own = torch.ones(1, 1, 1, 1, 6, 6, dtype=torch.bool)
    mutual_information(logits[0].softmax(dim=-1), logits[1].softmax(dim=-1), own).mean().backward()
    assert logits[0].grad.isfinite().all()
