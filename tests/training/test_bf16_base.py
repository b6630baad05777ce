"""LoRA beside weights that are kept in bfloat16: what learns is float32, and the result is the plain path's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoders import save_decoder
from rank_work import open_run
from test_matrix import unequal
from torch import Tensor

from sentemb import Encoder
from sentemb.errors import RecipeError
from sentemb.recipe.recipe import Recipe

pytest.importorskip("peft", reason='pip install "sentemb[peft]"')
TEXTS = ["a red dog runs", "music", "the city has a green house"]


@pytest.fixture(scope="module")
def decoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Qwen3, stored in bfloat16."""
    folder = tmp_path_factory.mktemp("decoder")
    return save_decoder(folder, tiny_bert, seed=2, dtype=torch.bfloat16, initializer_range=0.2)


def tree(decoder: Path, data: Path, weights: str, **train: Any) -> dict[str, Any]:
    return {
        "encoder": {"backbone": str(decoder), "pooling": "last", "weights": weights, "max_tokens": 16,
                    "adapters": [{"use": "lora", "rank": 4, "targets": "all-linear"}],
                    "heads": [{"use": "mlp"}]},
        "data": {"use": "triplets", "path": str(data)}, "views": {"use": "columns"},
        "terms": [{"use": "info_nce", "temperature": 0.5}],
        "train": {"batch_size": 12, "precision": "fp32", "learning_rate": 0.01, **train},
    }


def gradients(run: Any) -> dict[str, Tensor]:
    """Of one batch, once B of the adapters (which starts at nought) has values."""
    with torch.no_grad():
        for name, parameter in run.plan.objective.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter))
    run.step.backward([run.make_input(np.arange(12), 0)])
    return {f"gradient/{name}": parameter.grad.double() for name, parameter in run.plan.objective.named_parameters()
            if parameter.grad is not None}


def test_adapters_and_heads_alone_are_float32(decoder: Path, pairs_file: Path, tmp_path: Path) -> None:
    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    run = Run(build(Recipe.from_tree(tree(decoder, pairs_file, "bf16"), "r.toml"), tmp_path))
    objective = run.plan.objective
    for name, parameter in objective.named_parameters():
        learns = "lora_" in name or "heads" in name
        assert parameter.requires_grad is learns, name
        assert parameter.dtype == (torch.float32 if learns else torch.bfloat16), name
    frozen = {name: value.clone() for name, value in objective.named_parameters() if not value.requires_grad}
    encoder = run.plan.encoder
    before = encoder.encode(TEXTS)
    for batches in run.inputs():
        run.train_step(batches)
        if run.state.step == 3:
            break
    assert all(torch.equal(frozen[name], value) for name, value in objective.named_parameters() if name in frozen)
    after = encoder.encode(TEXTS)
    assert np.abs(after - before).max() > 1e-3
    folder, digest = encoder.save(tmp_path / "model"), encoder.digest()
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    saved = Encoder.load(folder, precision="bf16")
    assert saved.digest() == digest
    # merged weights are rounded once more
    assert (saved.encode(TEXTS) * after).sum(1) / (np.linalg.norm(after, axis=1) ** 2) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_the_plain_paths_within_rounding(
    decoder: Path, pairs_file: Path, tmp_path: Path, precision: str
) -> None:
    one, other = (
        gradients(_run(tree(decoder, pairs_file, weights, precision=precision), tmp_path / weights))
        for weights in ("fp32", "bf16")
    )
    assert not unequal(other, one, 0.06, 0.05)


@pytest.mark.parametrize("train", [{"chunk_size": 5}, {"gradient_checkpointing": True},
                                   {"chunk_size": 5, "gradient_checkpointing": True}], ids=str)
def test_chunks_and_recomputation_change_nothing(
    decoder: Path, pairs_file: Path, tmp_path: Path, train: dict[str, Any]
) -> None:
    exact = tree(decoder, pairs_file, "fp32")
    wanted = gradients(open_run(exact, str(tmp_path / "a"), dtype=torch.float64))
    found = gradients(open_run(exact | {"train": exact["train"] | train}, str(tmp_path / "b"), dtype=torch.float64))
    assert not unequal(found, wanted, 1e-9)
    half = tree(decoder, pairs_file, "bf16")
    wanted = gradients(_run(half, tmp_path / "c"))
    found = gradients(_run(half | {"train": half["train"] | train}, tmp_path / "d"))
    assert not unequal(found, wanted, 0.06, 0.05)


def _run(recipe: dict[str, Any], folder: Path) -> Any:
    from accelerate.state import AcceleratorState

    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    AcceleratorState._reset_state(reset_partial_state=True)
    return Run(build(Recipe.from_tree(recipe, "r.toml"), folder))


def test_weights_that_learn_are_not_kept_in_bf16(decoder: Path, pairs_file: Path) -> None:
    wrong = tree(decoder, pairs_file, "bf16")
    del wrong["encoder"]["adapters"]
    with pytest.raises(RecipeError, match=r"weights = \"bf16\".*lora.*freeze = true"):
        Recipe.from_tree(wrong, "r.toml")
    with pytest.raises(RecipeError, match=r"train\.shard.*encoder\.weights"):
        Recipe.from_tree(tree(decoder, pairs_file, "bf16", shard=True), "r.toml")
