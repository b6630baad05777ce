"""The lean forward passes give what the Hugging Face backbones give."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from backbones import ARCHITECTURES, DECODERS, LENGTHS, VOCABULARY, backbone, column, module_of
from torch import nn

from sentemb.encoder.poolings import TOKEN_POOLINGS
from sentemb.encoder.runners import choose, decoders
from sentemb.encoder.runners.attention import attend, pack, softmax_parts
from sentemb.encoder.runners.choose import LeanRunner, PlainRunner, Runners
from sentemb.encoder.runners.families import Unsupported, plain_weights
from sentemb.encoder.runners.forms import FastLinear, lean_form


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("pooling", ["mean", "cls", "first_last_mean", "last2_mean"])
def test_packed_equals_padded(kind: str, pooling: str) -> None:
    model = backbone(kind)
    module = module_of(model, pooling)
    rows = column(LENGTHS)
    with torch.inference_mode():
        fast = LeanRunner(lean_form(model, torch.float32), module)(rows)
        plain = PlainRunner(module, torch.float32, 1)(rows)
    assert plain.std() > 0.1
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("pooling", ["last", "mean", "first_last_mean"])
@pytest.mark.parametrize("longest", [0, 512])  # of the rows whose attention is two products
def test_packed_decoders_equal_padded_ones(
    kind: str, pooling: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(decoders._PRODUCTS, torch.float64, longest)
    model = backbone(kind).double()
    module = module_of(model, pooling)
    rows = column([70, 66, *LENGTHS])
    with torch.inference_mode():
        fast = LeanRunner(lean_form(model, torch.float64), module)(rows)
        plain = PlainRunner(module, torch.float64, 0)(rows)
    assert plain.std() > 0.05
    torch.testing.assert_close(fast, plain, rtol=1e-6, atol=1e-6)  # angles are made in float32


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_compute_on_the_weights_where_they_are(kind: str) -> None:
    model = backbone(kind).bfloat16()
    module = module_of(model, "last")
    rows = column(LENGTHS)
    with torch.inference_mode():
        runner = Runners().ready(module, torch.bfloat16, VOCABULARY)
        assert isinstance(runner, LeanRunner)
        weight = runner.form.layers[0].down.keywords["weight"]  # type: ignore[attr-defined]
        assert weight.data_ptr() == model.layers[0].mlp.down_proj.weight.data_ptr()
        half, full = runner(rows).float(), PlainRunner(module_of(backbone(kind), "last"), torch.float32, 0)(rows)
    assert torch.cosine_similarity(half, full, dim=-1).min() > 0.99


def test_decoders_of_another_kind_go_the_plain_way() -> None:
    stretched = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    for changes in ({"hidden_act": "gelu"}, {"rope_parameters": stretched}):
        with pytest.raises(Unsupported):
            lean_form(backbone("llama", **changes), torch.float32)
    seeing = backbone("qwen3")
    seeing.config.is_causal = False
    with pytest.raises(Unsupported, match="follows"):
        lean_form(seeing, torch.float32)


@pytest.mark.parametrize("pooling", [*TOKEN_POOLINGS, "cls+mean"])
def test_every_pooling_over_runs(pooling: str) -> None:
    model = backbone("bert")
    module = module_of(model, pooling)
    rows = column(LENGTHS)
    with torch.inference_mode():
        fast = LeanRunner(lean_form(model, torch.float32), module)(rows)
        plain = PlainRunner(module, torch.float32, 0)(rows)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=2e-5)


def test_bfloat16_stays_close_to_float32() -> None:
    model = backbone("bert")
    module = module_of(model, "mean")
    rows = column(LENGTHS)
    with torch.inference_mode():
        half = LeanRunner(lean_form(model, torch.bfloat16), module)(rows)
        full = PlainRunner(module, torch.float32, 0)(rows)
    assert half.dtype == torch.bfloat16
    assert torch.cosine_similarity(half.float(), full, dim=-1).min() > 0.99


def test_pack_joins_neighbours_of_equal_length() -> None:
    packed = pack(column([4, 4, 2]))
    first, second = packed.rectangles
    assert (first.begin, first.end, first.rows, first.length, first.mask) == (0, 8, 2, 4, None)
    assert (second.begin, second.end, second.rows, second.length) == (8, 10, 1, 2)
    assert packed.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_pack_fills_up_a_few_rows_of_nearly_one_length() -> None:
    (rows,) = pack(column([4, 4, 3])).rectangles
    line = torch.arange(11.0)[:, None]
    assert rows.mask.tolist() == [[True] * 4, [True] * 4, [True, True, True, False]]
    assert rows.of(line)[..., 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 8]]
    assert torch.equal(rows.tokens_of(rows.of(line)), line)


@pytest.mark.parametrize(("lengths", "rectangles"), [
    ([100] * 8 + [90] * 3, 2),  # more than a thousand tokens: each length alone
    ([100] * 8 + [90], 1), ([8, 7, 6, 5, 4], 2), ([5, 8, 6], 2), ([9], 1),
])  # fmt: skip
def test_rows_are_grouped_by_length_and_size(lengths: list[int], rectangles: int) -> None:
    packed = pack(column(lengths))
    assert len(packed.rectangles) == rectangles
    assert [rows.begin for rows in packed.rectangles[1:]] == [rows.end for rows in packed.rectangles[:-1]]
    assert packed.rectangles[-1].end == sum(lengths)


def test_joined_linear_maps_without_some_biases() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second, x = nn.Linear(16, 8), nn.Linear(16, 24, bias=False), torch.randn(5, 16)
    with torch.inference_mode():
        joining = partial(FastLinear.joining, plain_weights(nn.ModuleList([first, second])), dtype=torch.float32)
        torch.testing.assert_close(joining("0", "1")(x), torch.cat([first(x), second(x)], dim=1))
        activated = joining("0", activation="gelu")(x)
        torch.testing.assert_close(activated, nn.functional.gelu(first(x)), rtol=1e-5, atol=1e-5)
        residual = torch.ones(5, 8)
        torch.testing.assert_close(joining("0").plus(x, residual), first(x) + 1)


def test_what_the_lean_form_does_not_know_goes_the_plain_way() -> None:
    for changes in ({"hidden_act": "gelu_new"}, {"is_decoder": True}):
        with pytest.raises(Unsupported):
            lean_form(backbone("bert", **changes), torch.float32)
    hooked = backbone("bert")
    hooked.encoder.layer[0].output.dense.register_forward_hook(lambda *_: None)
    with pytest.raises(Unsupported):
        lean_form(hooked, torch.float32)
    module = module_of(hooked, "mean")
    with torch.inference_mode():
        assert isinstance(Runners().ready(module, torch.float32, VOCABULARY), PlainRunner)


def test_a_lean_form_that_differs_is_found_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("bert")
    module = module_of(model, "mean")

    def wrong(parts: object, dtype: torch.dtype) -> object:
        form = lean_form(model, dtype)
        form.positions = form.positions.flip(0)  # a mistake that keeps every shape
        return form

    monkeypatch.setattr(choose, "lean_form", wrong)
    with torch.inference_mode(), pytest.warns(UserWarning, match="the plain one is used"):
        run = Runners().ready(module, torch.float32, VOCABULARY)
    assert isinstance(run, PlainRunner)


def test_weights_that_change_are_noticed() -> None:
    module = module_of(backbone("bert"))
    rows, runners = column(LENGTHS), Runners()
    for fused in (True, False):  # fused optimizers do not raise autograd's version counters
        with torch.inference_mode():
            before = runners.ready(module, torch.float32, VOCABULARY)
            assert runners.ready(module, torch.float32, VOCABULARY) is before
            vectors = before(rows)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=fused)
        module.backbone.encoder.layer[1].output.dense.weight.square().sum().backward()
        optimizer.step()
        with torch.inference_mode():
            after = runners.ready(module, torch.float32, VOCABULARY)
            assert not torch.allclose(after(rows), vectors, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extra", ["none", "bias", "window"])
def test_attention_by_hand(dtype: torch.dtype, extra: str) -> None:
    """Both kernels, short rows and long ones, against softmax(Q Kᵀ / √d + bias) V, row by row and head by head."""
    lengths, heads, width = [300, 290, 20, 20, 19, 18, 16, 5, 4, 1], 3, 8
    packed = pack(column(lengths))
    assert len(packed.rectangles) == 4
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3 * heads * width, generator=generator).to(dtype)
    table = torch.randn(1, heads, 300, 300, generator=generator).to(dtype)
    bias = (lambda length: table[..., :length, :length]) if extra == "bias" else None
    window = 3 if extra == "window" else None
    found = attend(qkv, packed, heads, bias=bias, window=window)
    start = 0
    for length in lengths:
        part = qkv[start : start + length].double().view(length, 3, heads, width)
        for head in range(heads):
            scores = part[:, 0, head] @ part[:, 1, head].T / width**0.5
            if extra == "bias":
                scores = scores + table[0, head, :length, :length].double()
            if extra == "window":
                apart = (torch.arange(length)[:, None] - torch.arange(length)).abs()
                scores = scores.masked_fill(apart > 3, -torch.inf)
            expected = scores.softmax(-1) @ part[:, 2, head]
            ours = found[start : start + length, head * width : (head + 1) * width].double()
            assert (ours - expected).abs().max() < (1e-5 if dtype == torch.float32 else 0.06)
        start += length


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [0.0, 500.0, -500.0])
@pytest.mark.parametrize("mask", ["none", "added", "seen"])
def test_softmax_of_logits_out_of_the_formats_range(dtype: torch.dtype, shift: float, mask: str) -> None:
    """e^500 overflows and e^-500 vanishes; the weights do not."""
    rows, heads, length = 2, 3, 9
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(rows * heads, length, 4, generator=generator).to(dtype) for _ in range(2))
    if shift:
        query[0, 2], key[0] = abs(shift), shift / abs(shift)  # one row's logits: 4 · shift / 2
    added = torch.randn(1, heads, length, length, generator=generator)
    seen = torch.rand(rows, 1, length, length, generator=generator) < 0.7
    seen |= torch.eye(length, dtype=torch.bool)
    chosen = {"none": None, "added": added, "seen": seen}[mask]
    powers, totals = softmax_parts(query, key, chosen, rows)
    assert powers.isfinite().all()
    assert (totals > 0).all()
    scores = (query.double() @ key.double().transpose(1, 2) / 2).view(rows, heads, length, length)
    if mask == "added":
        scores = scores + added.double()
    elif mask == "seen":
        scores = scores.masked_fill(~seen, -torch.inf)
    ours = (powers.double() / totals.double()).view_as(scores)
    if mask == "added" and shift and dtype == torch.bfloat16:
        ours[0, 0, 2] = scores.softmax(-1)[0, 0, 2]  # 1000 + a bias, in bfloat16's 8 digits: any softmax loses the bias
    assert (ours - scores.softmax(-1)).abs().max() < (1e-5 if dtype == torch.float32 else 0.02)
