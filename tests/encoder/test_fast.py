"""The lean forward passes give what the Hugging Face backbones give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sentemb.encoder.fast import Unsupported, build, pack
from sentemb.encoder.fast.attention import attend, softmax_parts
from sentemb.encoder.fast.linear import FastLinear
from sentemb.encoder.fast.packed import Run
from sentemb.encoder.inference import FastInference, PlainInference, inference_for
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.pooling import POOLINGS, Pooling, pooling_spec
from sentemb.types import TokenColumn

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
ARCHITECTURES = {
    "bert": SIZES,
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "camembert": SIZES,
    "electra": SIZES | {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "mpnet": SIZES,
    "modernbert": SIZES | SPECIAL | {"local_attention": 12},
}


def backbone(kind: str, **changes: object) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind, vocab_size=99, **(ARCHITECTURES[kind] | changes))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModel.from_config(config).eval()
        for parameter in model.parameters():  # initial biases are zero and norms one, which would hide mistakes
            nn.init.normal_(parameter, std=0.3)
    return model


def column(lengths: list[int]) -> TokenColumn:
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = generator.integers(3, 99, offsets[-1]).astype(np.int32)
    return TokenColumn(flat, offsets, np.arange(len(lengths), dtype=np.int64))


LENGTHS = [40, 33, 33, 33, 17, 9, 9, 3, 1]


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("pooling", ["mean", "first_last_mean", "last2_mean"])
def test_packed_equals_padded(kind: str, pooling: str) -> None:
    model = backbone(kind)
    module = EncoderModule(model, Pooling(pooling_spec(pooling, 3), 32), [])
    rows, device = column(LENGTHS), torch.device("cpu")
    with torch.inference_mode():
        fast = FastInference(build(model, torch.float32), module.pooling, device)(rows)
        plain = PlainInference(module, 1, device)(rows)
    assert plain.std() > 0.1
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("pooling", [*[name for name in POOLINGS if "_mean" not in name or name == "weighted_mean"],
                                     "mean_sqrt_len", "cls+mean"])
def test_every_pooling_over_runs(pooling: str) -> None:
    model = backbone("bert")
    module = EncoderModule(model, Pooling(pooling_spec(pooling, 3), 32), [])
    rows, device = column(LENGTHS), torch.device("cpu")
    with torch.inference_mode():
        fast = FastInference(build(model, torch.float32), module.pooling, device)(rows)
        plain = PlainInference(module, 0, device)(rows)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=2e-5)


def test_bfloat16_stays_close_to_float32() -> None:
    model = backbone("bert")
    module = EncoderModule(model, Pooling(pooling_spec("mean", 3), 32), [])
    rows, device = column(LENGTHS), torch.device("cpu")
    with torch.inference_mode():
        half = FastInference(build(model, torch.bfloat16), module.pooling, device)(rows)
        full = PlainInference(module, 0, device)(rows)
    assert half.dtype == torch.bfloat16
    assert torch.cosine_similarity(half.float(), full, dim=-1).min() > 0.99


def test_pack_joins_neighbours_of_equal_length() -> None:
    packed = pack(column([4, 4, 2]))
    assert packed.runs == (Run(0, 2, 4), Run(8, 1, 2))
    assert packed.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert packed.row_starts.tolist() == [0, 4, 8, 10]
    assert packed.longest == 4


def test_joined_linear_maps_without_some_biases() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second, x = nn.Linear(16, 8), nn.Linear(16, 24, bias=False), torch.randn(5, 16)
    with torch.inference_mode():
        joined = FastLinear.joining([first, second], torch.float32)
        torch.testing.assert_close(joined(x), torch.cat([first(x), second(x)], dim=1))
        activated = FastLinear.joining([first], torch.float32, "gelu")(x)
        torch.testing.assert_close(activated, nn.functional.gelu(first(x)), rtol=1e-5, atol=1e-5)
        residual = torch.ones(5, 8)
        torch.testing.assert_close(FastLinear.joining([first], torch.float32).plus(x, residual), first(x) + 1)


def test_what_the_lean_form_does_not_know_goes_the_plain_way() -> None:
    for changes in ({"hidden_act": "gelu_new"}, {"is_decoder": True}):
        with pytest.raises(Unsupported):
            build(backbone("bert", **changes), torch.float32)
    hooked = backbone("bert")
    hooked.encoder.layer[0].output.dense.register_forward_hook(lambda *_: None)
    with pytest.raises(Unsupported):
        build(hooked, torch.float32)
    module = EncoderModule(hooked, Pooling(pooling_spec("mean", 3), 32), [])
    with torch.inference_mode():
        assert isinstance(inference_for(module, torch.float32, 0, column(LENGTHS)), PlainInference)


def test_a_lean_form_that_differs_is_found_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("bert")
    module = EncoderModule(model, Pooling(pooling_spec("mean", 3), 32), []).eval()

    def wrong(parts: object, dtype: torch.dtype) -> object:
        made = build(model, dtype)
        made.positions = made.positions.flip(0)  # a mistake that keeps every shape
        return made

    monkeypatch.setattr("sentemb.encoder.inference.build", wrong)
    with torch.inference_mode(), pytest.warns(UserWarning, match="the plain one is used"):
        run = inference_for(module, torch.float32, 0, column(LENGTHS))
    assert isinstance(run, PlainInference)


def test_weights_that_change_are_noticed() -> None:
    module = EncoderModule(backbone("bert"), Pooling(pooling_spec("mean", 3), 32), []).eval()
    rows = column(LENGTHS)
    for fused in (True, False):  # fused optimizers do not raise autograd's version counters
        with torch.inference_mode():
            before = inference_for(module, torch.float32, 0, rows)
            assert inference_for(module, torch.float32, 0, rows) is before
            vectors = before(rows)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=fused)
        module.backbone.encoder.layer[1].output.dense.weight.square().sum().backward()
        optimizer.step()
        with torch.inference_mode():
            after = inference_for(module, torch.float32, 0, rows)
            assert not torch.allclose(after(rows), vectors, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extra", ["none", "bias", "window"])
def test_attention_by_hand(dtype: torch.dtype, extra: str) -> None:
    """Both kernels, short rows and long ones, against softmax(Q Kᵀ / √d + bias) V, row by row and head by head."""
    lengths, heads, width = [300, 20, 20, 16, 5, 1], 3, 8
    packed = pack(column(lengths))
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
