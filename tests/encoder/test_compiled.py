"""torch.compile of architectures without a lean form: the same vectors, or the plain path with a reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from test_fast import backbone, column
from torch import nn

from sentemb.encoder import pipeline
from sentemb.encoder.inference import CompiledInference, FastInference, PlainInference, inference_for
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.pipeline import EncodeOptions, embed_column
from sentemb.encoder.pooling import Pooling, pooling_spec

# the compiler's own deprecations
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"),
              pytest.mark.filterwarnings("ignore::FutureWarning"),
              pytest.mark.filterwarnings("ignore:dynamo_pgo")]  # a cache that a test turns off
ROWS = column([9, 9, 7, 4, 4, 2, 1])


def unknown() -> EncoderModule:
    """A backbone that has no lean form: a subclass may compute something else."""
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, head_dim=16, intermediate_size=48)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model: nn.Module = Qwen3Model(config).eval()
    return EncoderModule(model, Pooling(pooling_spec("mean", 2), 32), [])


@pytest.mark.slow
def test_compiled_equals_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "COMPILED_FROM", 1)
    module, options = unknown(), EncodeOptions(0, budget=20)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = embed_column(module, ROWS, dataclasses.replace(options, compile=True))
    assert type(inference_for(module, torch.float32, 0, ROWS, compiled=True)) is CompiledInference
    np.testing.assert_allclose(found, embed_column(module, ROWS, options), atol=1e-5)
    assert module.backbone._compiled_call_impl is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_compiler_that_is_missing_is_told_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    module = unknown()
    with pytest.warns(UserWarning, match=r"torch.compile of Qwen3Model fails here .*runs uncompiled"):
        run = inference_for(module, torch.float32, 0, ROWS, compiled=True)
    assert type(run) is PlainInference


@pytest.mark.parametrize("short", [True, False])
def test_short_work_and_lean_forms_are_not_compiled(short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(nn.Module, "compile", never)
    if not short:
        monkeypatch.setattr(pipeline, "COMPILED_FROM", 1)
    module = unknown() if short else EncoderModule(backbone("bert"), Pooling(pooling_spec("mean", 3), 32), [])
    embed_column(module, ROWS, EncodeOptions(0, compile=True))
    expected = PlainInference if short else FastInference
    assert type(inference_for(module, torch.float32, 0, ROWS, compiled=not short)) is expected
