from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from part_examples import tree_of
from rank_work import open_run

from sentemb.companions.momentum import Momentum
from sentemb.errors import ModelError
from sentemb.training.gradcache import GradCache
from sentemb.training.memory import estimate, read_shape
from sentemb.training.settings import TrainSettings

COMMON: dict[str, Any] = {"views": 2, "candidates": 1}


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(batch_size=512, precision="fp32", **changes)


def test_shape_is_read_from_the_files(tiny_bert: Path) -> None:
    shape = read_shape(tiny_bert, 32)
    assert (shape.hidden, shape.layers, shape.intermediate, shape.heads, shape.longest) == (32, 2, 64, 4, 32)
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(tiny_bert)
    assert shape.parameters == pytest.approx(sum(parameter.numel() for parameter in model.parameters()), rel=0.05)
    assert read_shape(tiny_bert, None).longest == 128


def test_unknown_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    with pytest.raises(ModelError, match="max_position_embeddings"):
        read_shape(tmp_path, None)


def test_activations_are_those_measured(tiny_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    tree = tree_of("views", "columns", str(tiny_bert), str(pairs_file), chunk_size=4, kept_graphs_mib=1)
    run = open_run(tree, str(tmp_path), dtype=torch.float32)
    cache = GradCache(run.plan.objective, run.accelerator, kept_graphs_mib=1)
    cache(run.make_input(np.arange(16), 0), 1.0)
    shape = read_shape(tiny_bert, 32)
    # the estimate leaves out embeddings, pooling and what does not grow with the layers: much in two layers of 32
    per_text = shape.activation_bytes(1, cache._longest, "fp32", on_gpu=False, recompute=False)
    assert per_text == pytest.approx(cache._bytes_per_token * cache._longest, rel=0.35)


def test_proposal_fits_and_twice_it_does_not(tiny_bert: Path) -> None:
    shape = read_shape(tiny_bert, 32)
    whole = estimate(shape, settings(), **COMMON)
    assert whole.fits
    assert whole.texts == 1024
    tight = estimate(shape, settings(), available=(whole.fixed + whole.tables + whole.activations / 5) / 0.8, **COMMON)
    assert not tight.fits
    assert tight.chunk_size == 128
    assert "set train.chunk_size = 128" in tight.sentence()
    assert estimate(shape, settings(chunk_size=128), available=tight.available, **COMMON).fits
    assert not estimate(shape, settings(chunk_size=256), available=tight.available, **COMMON).fits


def test_hopeless_is_told(tiny_bert: Path) -> None:
    assert "not even with" in estimate(read_shape(tiny_bert, 32), settings(), available=1e6, **COMMON).sentence()


def test_chunks_recomputation_and_companions_count(tiny_bert: Path) -> None:
    shape = read_shape(tiny_bert, 32)
    plain = estimate(shape, settings(), **COMMON)
    for chunks in (settings(chunk_size=64), settings(chunk_tokens=64 * 32)):
        assert estimate(shape, chunks, **COMMON).activations == pytest.approx(plain.activations / 16)
    assert estimate(shape, settings(gradient_checkpointing=True), **COMMON).activations < plain.activations
    with_queue = estimate(shape, settings(), companion_bytes=Momentum.model_bytes, **COMMON)
    assert with_queue.fixed == plain.fixed + 4 * shape.parameters
    assert estimate(shape, settings(), frozen=True, **COMMON).fixed == plain.fixed - 12 * shape.parameters
