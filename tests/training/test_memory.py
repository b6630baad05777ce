from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoders import save_decoder
from part_examples import tree_of
from rank_work import open_run
from torch import Tensor

from sentemb import Encoder
from sentemb.encoder.adapters import Lora
from sentemb.errors import ModelError
from sentemb.recipe.recipe import Recipe
from sentemb.recipe.train import build
from sentemb.training.inputs import LengthGroup
from sentemb.training.memory import BackboneShape, WeightsInMemory, forecast, read_shape
from sentemb.training.run import Run
from sentemb.training.settings import TrainSettings

BASE = BackboneShape(parameters=110_000_000, hidden=768, layers=12, intermediate=3072, heads=12, longest=32)


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(batch_size=512, precision="fp32", **changes)


def told(available: float | None = None, *, copies: int = 0, **train: Any) -> tuple[bool, str]:
    weights = WeightsInMemory(copies=copies)
    return forecast(BASE, settings(**train), views=2, candidates=1, weights=weights).advice(available)


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


def saved_bytes(run: Run, group: LengthGroup) -> tuple[int, int, int]:
    """What encoding the group keeps for backward beside weights; its texts, and tokens of each."""
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
    return sum(sizes.values()), texts, longest


def test_activations_are_those_measured(tiny_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    tree = tree_of("views", "columns", str(tiny_bert), str(pairs_file), chunk_size=4)
    run = open_run(tree, str(tmp_path), dtype=torch.float32)
    group = run.make_input(np.arange(16), 0).groups[-1]  # the longest texts
    measured, texts, longest = saved_bytes(run, group)
    # the estimate leaves out embeddings, pooling and what does not grow with the layers: much in two layers of 32
    shape = read_shape(tiny_bert, longest)
    assert shape.text_bytes(settings()) == pytest.approx(measured / texts, rel=0.35)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("still", [True, False])
def test_activations_of_gated_decoders_are_those_measured(
    weights: str, still: bool, tiny_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    if weights == "bf16" and not still:
        pytest.skip("weights that learn are in float32")
    folder = save_decoder(tmp_path / "decoder", tiny_bert, seed=0, hidden_size=128, intermediate_size=384,
                          num_hidden_layers=3, head_dim=32)
    tree = tree_of("views", "columns", str(folder), str(pairs_file), chunk_size=4)
    tree["encoder"] = {"backbone": str(folder), "pooling": "last", "weights": weights}
    lora = Lora(rank=2, targets="all-linear")
    if still:
        tree["encoder"]["adapters"] = [{"use": "lora", "rank": 2, "targets": "all-linear"}]
    plan = build(Recipe.from_tree(tree, "r.toml"), tmp_path)
    run = Run(plan)
    group = run.make_input(np.arange(16), 0).groups[-1]
    measured, texts, longest = saved_bytes(run, group)
    shape = read_shape(folder, longest)
    held = WeightsInMemory.of(shape, [lora] if still else [], bytes=2 if weights == "bf16" else 4, is_still=still)
    parameters = sum(value.numel() for name, value in plan.objective.named_parameters() if "lora_" in name)
    assert held.adapter_parameters == parameters
    assert shape.text_bytes(settings(), held) == pytest.approx(measured / texts, rel=0.15)


def test_bytes_of_weights_are_those_in_memory(tiny_bert: Path, tmp_path: Path) -> None:
    folder = save_decoder(tmp_path / "decoder", tiny_bert, seed=1, hidden_size=512, intermediate_size=1024)
    shape = read_shape(folder, None)
    assert (shape.weight_bytes("fp32"), shape.weight_bytes("bf16")) == (4, 2)
    pytest.importorskip("bitsandbytes", reason='pip install "sentemb[nf4]"')
    state = Encoder.load(folder, weights="nf4").module.backbone.state_dict()
    size = sum(value.nbytes for name, value in state.items() if not name.endswith(("quant_map", "nf4")))  # tables
    assert shape.weight_bytes("nf4") * shape.parameters == pytest.approx(size, rel=0.01)


def test_a_folder_without_weights_has_a_shape(tiny_bert: Path, tmp_path: Path) -> None:
    whole = read_shape(tiny_bert, None)
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    shape = read_shape(tmp_path, None)
    assert shape.parameters == pytest.approx(whole.parameters, rel=0.05)
    sizes = Lora(rank=2).parameters_in(shape.matrices)
    assert sizes == Lora(rank=2).parameters_in(whole.matrices) == 2 * 2 * 2 * (32 + 32)


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
