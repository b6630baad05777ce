from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from part_examples import tree_of
from rank_work import open_run
from torch import Tensor

from sentemb.errors import ModelError
from sentemb.training.memory import BackboneShape, Kept, forecast, read_shape
from sentemb.training.settings import TrainSettings

BASE = BackboneShape(parameters=110_000_000, hidden=768, layers=12, intermediate=3072, heads=12, longest=32)


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(batch_size=512, precision="fp32", **changes)


def told(available: float | None = None, *, copies: int = 0, **train: Any) -> tuple[bool, str]:
    return forecast(BASE, settings(**train), views=2, candidates=1, kept=Kept(copies=copies)).advice(available)


def gib(sentence: str, before: str) -> float:
    return float(sentence.partition(before)[2].split()[0])


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
    tree = tree_of("views", "columns", str(tiny_bert), str(pairs_file), chunk_size=4)
    run = open_run(tree, str(tmp_path), dtype=torch.float32)
    group = run.make_input(np.arange(16), 0).groups[-1]  # the longest texts
    weights = {parameter.untyped_storage().data_ptr() for parameter in run.plan.objective.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        pooled = run.plan.objective.encode_group(group)
    assert pooled.requires_grad
    texts, longest = group.tokens.input_ids.shape
    # the estimate leaves out embeddings, pooling and what does not grow with the layers: much in two layers of 32
    shape = read_shape(tiny_bert, longest)
    assert shape.text_bytes(settings()) == pytest.approx(sum(sizes.values()) / texts, rel=0.35)


def test_proposal_fits_and_twice_it_does_not() -> None:
    fits, whole = told()
    assert fits
    assert "activations of 1024 texts of 32 tokens" in whole
    activations, total = gib(whole, "32 tokens "), gib(whole, "about ")
    tight = (total - activations * 4 / 5) / 0.8 * 2**30
    assert not told(tight)[0]
    assert "set train.chunk_size = 128" in told(tight)[1]
    assert told(tight, chunk_size=128)[0]
    assert not told(tight, chunk_size=256)[0]


def test_hopeless_is_told() -> None:
    assert "not even with" in told(1e6)[1]


def test_chunks_recomputation_and_companions_count() -> None:
    _, plain = told()
    activations = gib(plain, "32 tokens ")
    assert gib(told(chunk_size=64)[1], "32 tokens ") == pytest.approx(activations / 16, abs=0.06)
    assert gib(told(gradient_checkpointing=True)[1], "32 tokens ") < activations
    more = gib(told(copies=4)[1], "optimiser ") - gib(plain, "optimiser ")
    assert more == pytest.approx(4 * BASE.parameters / 2**30, abs=0.1)
