"""LoRA beside weights in bfloat16 or four bits: what learns is float32, and the result is the plain path's."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from decoders import save_decoder
from rank_work import open_run
from test_matrix import unequal
from torch import Tensor

from sentemb import Encoder
from sentemb.encoder.adapters import Prefix
from sentemb.encoder.export import export
from sentemb.encoder.four_bits import in_full
from sentemb.errors import CheckpointError, ModelError, RecipeError
from sentemb.recipe.recipe import Recipe

pytest.importorskip("peft", reason='pip install "sentemb[peft]"')
TEXTS = ["a red dog runs", "music", "the city has a green house"]
needs_four_bits = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason='pip install "sentemb[nf4]"')
FORMATS = ["bf16", pytest.param("nf4", marks=needs_four_bits)]


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


@pytest.mark.parametrize("weights", FORMATS)
def test_adapters_and_heads_alone_are_float32(decoder: Path, pairs_file: Path, tmp_path: Path, weights: str) -> None:
    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    run = Run(build(Recipe.from_tree(tree(decoder, pairs_file, weights), "r.toml"), tmp_path))
    objective = run.plan.objective
    for name, parameter in objective.named_parameters():
        learns = "lora_" in name or "heads" in name
        assert parameter.requires_grad is learns, name
        is_rounded = weights == "nf4" and "base_layer" in name
        assert parameter.dtype == (torch.float32 if learns else torch.uint8 if is_rounded else torch.bfloat16), name
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


@needs_four_bits
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_four_bits_give_the_gradients_of_the_matrices_that_they_stand_for(
    decoder: Path, pairs_file: Path, tmp_path: Path, precision: str
) -> None:
    whole = Encoder.load(decoder, pooling="last", weights="nf4").save(tmp_path / "whole")
    bases = {"wanted": (whole, "bf16"), "of_four_bits": (decoder, "nf4"), "unrounded": (decoder, "bf16")}
    wanted, of_four_bits, unrounded = (
        torch.cat([value.flatten() for _, value in sorted(gradients(run).items())])
        for name, (base, weights) in bases.items()
        for run in [_run(tree(base, pairs_file, weights, precision=precision), tmp_path / name)]
    )
    assert F.cosine_similarity(of_four_bits, wanted, dim=0) > 0.999 > F.cosine_similarity(unrounded, wanted, dim=0)


@pytest.mark.parametrize("train", [{"chunk_size": 5}, {"gradient_checkpointing": True},
                                   {"chunk_size": 5, "gradient_checkpointing": True}], ids=str)
def test_chunks_and_recomputation_change_nothing(
    decoder: Path, pairs_file: Path, tmp_path: Path, train: dict[str, Any]
) -> None:
    exact = tree(decoder, pairs_file, "fp32")
    wanted = gradients(open_run(exact, str(tmp_path / "a"), dtype=torch.float64))
    found = gradients(open_run(exact | {"train": exact["train"] | train}, str(tmp_path / "b"), dtype=torch.float64))
    assert not unequal(found, wanted, 1e-9)
    for weights in ("bf16", *(("nf4",) if find_spec("bitsandbytes") else ())):
        half = tree(decoder, pairs_file, weights)
        wanted = gradients(_run(half, tmp_path / f"c-{weights}"))
        found = gradients(_run(half | {"train": half["train"] | train}, tmp_path / f"d-{weights}"))
        assert not unequal(found, wanted, 0.06, 0.05)


@needs_four_bits
def test_the_matrices_are_nf4_in_blocks_of_64(decoder: Path) -> None:
    """Entries of a block over its largest are 16 values, the quantiles of a normal distribution between -1 and 1."""
    encoder = Encoder.load(decoder, weights="nf4")
    exact = dict(Encoder.load(decoder, weights="bf16").module.backbone.named_parameters())
    table = torch.tensor([-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461,
                          0.3379, 0.4407, 0.5626, 0.7230, 1.0])  # the paper's appendix E
    for name, weight in encoder.module.backbone.named_parameters():
        if weight.dtype != torch.uint8:
            assert torch.equal(weight, exact[name])
            continue
        exact_blocks, blocks = (value.float().reshape(-1, 64) for value in (exact[name], in_full(weight)))
        scale = blocks.abs().amax(dim=1, keepdim=True)
        # half of the widest gap, and a rounded scale
        assert ((blocks - exact_blocks).abs() <= 0.16 * scale + 0.02).all()
        codes = blocks / scale  # bfloat16 rounds some of one kind apart
        assert ((codes[:, :, None] - table).abs().amin(dim=2) < 0.01).all()


@needs_four_bits
def test_a_run_on_four_bits_is_resumed_exactly_and_on_no_other_base(
    decoder: Path, pairs_file: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    from sentemb.recipe.train import train

    base, folder = shutil.copytree(decoder, tmp_path / "base"), tmp_path / "run"
    recipe = Recipe.from_tree(tree(base, pairs_file, "nf4", save_every=3, max_steps=6, epochs=9), "r.toml")

    def run_from_the_third_step() -> Encoder:
        shutil.rmtree(folder / "model", ignore_errors=True)
        shutil.rmtree(folder / "checkpoints" / "step-00000006", ignore_errors=True)
        return Encoder.load(train(recipe, output=folder, resume=True).model_dir)

    whole = run_from_the_third_step().encode(TEXTS)  # the first call begins at the beginning
    assert (folder / "checkpoints" / "step-00000003").is_dir()
    np.testing.assert_array_equal(run_from_the_third_step().encode(TEXTS), whole)
    save_decoder(base, tiny_bert, seed=5, dtype=torch.bfloat16, initializer_range=0.2)
    with pytest.raises(CheckpointError, match="another base"):
        run_from_the_third_step()


@needs_four_bits
def test_what_four_bits_cannot_do_is_told(decoder: Path, pairs_file: Path, tmp_path: Path, tiny_bert: Path) -> None:
    encoder = Encoder.load(decoder, weights="nf4")
    with pytest.raises(ModelError, match=r'"nf4" encodes with precision = "bf16" alone'):
        encoder.encode(TEXTS, precision="fp32")
    with pytest.raises(ModelError, match="export the saved model"):
        export(encoder, tmp_path / "graph")
    prefixed = Encoder.load(tiny_bert)
    Prefix(length=2).add_to(prefixed.module.backbone)
    with pytest.raises(ModelError, match="rounds what an adapter changes"):
        Encoder.load(prefixed.save(tmp_path / "prefixed"), weights="nf4")


def _run(recipe: dict[str, Any], folder: Path) -> Any:
    from accelerate.state import AcceleratorState

    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    AcceleratorState._reset_state(reset_partial_state=True)
    return Run(build(Recipe.from_tree(recipe, "r.toml"), folder))


def test_weights_that_learn_are_not_kept_in_a_smaller_format(decoder: Path, pairs_file: Path) -> None:
    for weights in ("bf16", "nf4"):
        wrong = tree(decoder, pairs_file, weights)
        del wrong["encoder"]["adapters"]
        with pytest.raises(RecipeError, match=rf"weights = \"{weights}\".*lora.*freeze = true"):
            Recipe.from_tree(wrong, "r.toml")
        with pytest.raises(RecipeError, match=r"train\.shard.*encoder\.weights"):
            Recipe.from_tree(tree(decoder, pairs_file, weights, shard=True), "r.toml")
