"""Small batches on a GPU: filled up to a recorded shape they give what they give alone."""

from __future__ import annotations

import pytest
import torch
from test_fast import ARCHITECTURES, LENGTHS, backbone, column

from sentemb.encoder.fast import GraphedEncoder, build, pack
from sentemb.encoder.fast.graphs import MAX_TOKENS, Shape, shape_for
from sentemb.encoder.fast.packed import fill_up
from sentemb.encoder.inference import FastInference, PlainInference, _as_one_rectangle, _by_runs
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.pooling import POOLINGS, Pooling, pooling_spec

BATCHES = [LENGTHS, [1], [40], [3, 3, 3], [16, 15], [7] * 30, [64], [33, 31]]


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind != "mpnet"])
def test_filled_rows_change_nothing(kind: str, lengths: list[int]) -> None:
    fast = build(backbone(kind), torch.float32)
    assert fast.is_shape_only
    packed = pack(column(lengths))
    shape = shape_for(packed)
    filled = fill_up(packed, shape.tokens, shape.rows)
    with torch.inference_mode():
        alone, among = fast(packed)[0], fast(filled)[0]
    torch.testing.assert_close(among[: packed.tokens], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", BATCHES)
def test_filled_batches_have_their_shape_and_no_longer_rows(lengths: list[int]) -> None:
    packed = pack(column(lengths))
    shape = shape_for(packed)
    filled = fill_up(packed, shape.tokens, shape.rows)
    assert (filled.tokens, filled.rows) == (shape.tokens, shape.rows)
    assert shape.longest >= packed.longest
    row_lengths = filled.row_starts.diff()
    assert row_lengths[: len(lengths)].tolist() == sorted(lengths, reverse=True)
    assert int(row_lengths.min()) >= 0
    assert int(row_lengths.max()) == packed.longest
    assert int(filled.row_starts[-1]) == filled.tokens
    assert filled.runs[-1].end == filled.tokens
    # every token's position is its distance from its row's start
    starts = torch.repeat_interleave(filled.row_starts[:-1], row_lengths)
    assert torch.equal(filled.positions, torch.arange(filled.tokens) - starts)


def test_batches_of_like_size_share_a_shape() -> None:
    shapes = {shape_for(pack(column([length] * rows))) for length in (17, 25, 31) for rows in (1, 2)}
    assert shapes == {Shape(64, 8, 32)}


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        fill_up(pack(column([4, 4])), 64, 8)


def test_the_bias_of_mpnet_cannot_be_repeated() -> None:
    assert not build(backbone("mpnet"), torch.float32).is_shape_only


@pytest.mark.parametrize("pooling", [*POOLINGS, "cls+mean"])
@pytest.mark.parametrize("prompt_tokens", [0, 1])
def test_one_rectangle_pools_as_runs_do(pooling: str, prompt_tokens: int) -> None:
    packed = pack(column([9, 9, 5, 3, 2]))
    generator = torch.Generator().manual_seed(0)
    spec = pooling_spec(pooling, 2)
    pool = Pooling(type(spec)(spec.modes, spec.layer_weights, include_prompt=False), 8)
    states = [torch.randn(packed.tokens, 8, generator=generator) for _ in range(3 if pool.needs_layers else 1)]
    found = _as_one_rectangle(pool, states, packed, prompt_tokens)
    torch.testing.assert_close(found, _by_runs(pool, states, packed, prompt_tokens), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind != "mpnet"])
def test_graphs_repeat_the_lean_form(kind: str) -> None:
    device = torch.device("cuda")
    sizes = {"hidden_size": 64} if kind != "distilbert" else {"dim": 64}  # heads of 16: flash attention's least
    model = backbone(kind, **sizes).to(device)
    module = EncoderModule(model, Pooling(pooling_spec("mean", 3), 64), [])
    graphed = GraphedEncoder(build(model, torch.bfloat16), device)
    run, plain = FastInference(graphed, module.pooling, device), PlainInference(module, 0, device)
    with torch.inference_mode():
        for lengths in [*BATCHES, *BATCHES]:
            rows = column(lengths)
            found, expected = run(rows).float(), plain(rows)
            assert torch.cosine_similarity(found, expected, dim=-1).min() > 0.99
    assert graphed._recorded
    assert not graphed._is_off
    assert len(graphed._recorded) <= len(BATCHES)
    with torch.inference_mode():
        large = column([40] * (MAX_TOKENS // 40 + 1))
        assert torch.cosine_similarity(run(large).float(), plain(large), dim=-1).min() > 0.99
