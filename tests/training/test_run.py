"""What a run promises when something goes wrong, and what it says of itself."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from part_examples import tree_of
from rank_work import mined_again, open_run
from remining import MINING
from safetensors.torch import load_file

from sentemb.encoder import Encoder
from sentemb.errors import CheckpointError, NumericError, RecipeError
from sentemb.recipe.recipe import Recipe
from sentemb.recipe.train import train
from sentemb.terms.term import Term
from sentemb.training.run import Run
from sentemb.types import Batch, PairScores

Make = Any


@pytest.fixture
def tree(tiny_bert: Path, pairs_file: Path) -> Any:
    def of(room: str = "heads", name: str = "mlp", **settings: Any) -> dict[str, Any]:
        return tree_of(room, name, str(tiny_bert), str(pairs_file), **{"max_steps": 4, "epochs": 20, **settings})

    return of


def trained(tree: dict[str, Any], folder: Path, *, resume: bool = False) -> Any:
    return train(Recipe.from_tree(tree, "test.toml"), output=folder, resume=resume)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "model" / "model.safetensors")


def assert_equal_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


# --------------------------------------------------------------------------------------------------- saving
@pytest.mark.parametrize("has_dev", [False, True])
def test_a_full_disk_at_the_export_loses_nothing(
    has_dev: bool, tree: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tree(**({"eval_every": 2, "save_every": 100} if has_dev else {}))
    if has_dev:
        dev = tmp_path / "dev.tsv"
        dev.write_text("sentence1\tsentence2\tscore\na dog\ta cat\t1\na man\ta man\t5\na red song\tmusic\t3\n")
        settings["dev"] = [{"use": "sts", "path": str(dev)}]
    trained(settings, tmp_path / "whole")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "save", full)
        with pytest.raises(CheckpointError, match=r"step [24]: the model could not be saved: .*No space.*--resume"):
            trained(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    monkeypatch.setattr(Run, "train_step", Run.train_step if has_dev else full)  # nothing is trained again
    trained(settings, tmp_path / "run", resume=True)
    assert_equal_weights(tmp_path / "run", tmp_path / "whole")


def test_without_save_every_a_checkpoint_is_saved_after_some_minutes(
    tree: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentemb.training.run.SAVE_EVERY_S", 0.0)
    run = open_run(tree(), str(tmp_path), dtype=torch.float32)
    train_step, seen = run.train_step, []

    def step(batches: Any) -> Any:
        seen.append(sorted(path.name[-1] for path in (tmp_path / "checkpoints").glob("step-*")))
        return train_step(batches)

    run.train_step = step
    run.train()
    assert seen == [[], ["1"], ["1", "2"], ["2", "3"]]


def test_files_of_a_checkpoint_can_be_read_by_others(tree: Make, tmp_path: Path) -> None:
    trained(tree(), tmp_path / "run")
    files = [*(tmp_path / "run" / "checkpoints" / "step-00000004").iterdir(), tmp_path / "run" / "best.safetensors"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


def test_two_processes_do_not_train_in_one_folder(tree: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(CheckpointError, match="another process is training"):
        trained(tree(), tmp_path / "run")
    assert trained(tree(), tmp_path / "run").steps == 4


# ------------------------------------------------------------------------------------------------- resuming
def test_a_refused_resume_changes_nothing(tree: Make, tmp_path: Path) -> None:
    trained(tree(), tmp_path)
    names = ("recipe.toml", "run.json", "result.json", "metrics.jsonl")
    before = [(tmp_path / name).read_bytes() for name in names]
    for other in (tree(learning_rate=2e-3), tree("edits", "queue"), tree("companions", "propensity")):
        with pytest.raises(CheckpointError, match="another recipe"):
            trained(other, tmp_path, resume=True)
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_changed_data_are_refused(tree: Make, tmp_path: Path, pairs_file: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text(pairs_file.read_text())
    settings = tree()
    settings["data"]["path"] = str(data)
    trained(settings, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    lines = pairs_file.read_text().splitlines(keepends=True)
    data.write_text("".join(lines[::-1]))
    with pytest.raises(CheckpointError, match="saved on other data"):
        trained(settings, tmp_path / "run", resume=True)
    data.write_text(pairs_file.read_text())
    assert trained(settings, tmp_path / "run", resume=True).steps == 4


def test_a_start_that_failed_is_no_run(tree: Make, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="make no batch"):
        trained(tree(gradient_accumulation=100), tmp_path)
    assert not (tmp_path / "recipe.toml").exists()
    with pytest.raises(NumericError):
        trained(tree(learning_rate=1e38), tmp_path)
    assert trained(tree(), tmp_path).steps == 4
    with pytest.raises(RecipeError, match="already holds a run"):
        trained(tree(), tmp_path)


def test_result_counts_all_starts_and_real_rows(tree: Make, tmp_path: Path) -> None:
    settings = tree(batch_size=500, save_every=1)  # 36 rows
    run = open_run(settings, str(tmp_path), dtype=torch.float32)
    for batches in run.inputs():
        run.train_step(batches)
        if run.state.step == 2:
            break
    seconds = run.state.seconds
    assert run.state.examples == 72
    run.save()
    resumed = open_run(settings, str(tmp_path), dtype=torch.float32, resume=True)
    result = resumed.train()
    assert resumed.state.examples == 4 * 36
    assert result.seconds > seconds > 0
    assert result.examples_per_second == pytest.approx(4 * 36 / result.seconds)
    assert json.loads((tmp_path / "result.json").read_text())["seconds"] == result.seconds


# ----------------------------------------------------------------------------------------------- not a number
def test_weights_that_are_not_finite_are_not_exported(tree: Make, tmp_path: Path) -> None:
    for settings in (
        tree(learning_rate=1e38, on_nan="skip", schedule="constant"),
        tree(learning_rate=1e38, max_steps=1),  # the last step's loss is fine, what it makes of the weights is not
    ):
        with pytest.raises(NumericError, match="so no model is exported") as failure:
            trained(settings, tmp_path)
        assert failure.value.exit_code == 2
        assert not (tmp_path / "model").exists()


def test_a_run_that_only_skipped_steps_exports_nothing(tree: Make, tmp_path: Path) -> None:
    settings = tree(on_nan="skip")
    settings["terms"] = [{"use": f"{__name__}:NeverFinite"}]
    with pytest.raises(NumericError, match=r"the loss of every step was not finite \(4 steps were skipped\)"):
        trained(settings, tmp_path)
    assert not (tmp_path / "model").exists()


# ------------------------------------------------------------------------------------------------- companions
def test_two_trainings_in_one_process_are_equal(tree: Make, tmp_path: Path) -> None:
    for name in ("one", "two"):
        trained(tree("companions", "propensity", precision="bf16"), tmp_path / name)
    assert_equal_weights(tmp_path / "one", tmp_path / "two")


class NeverFinite(Term):
    """A loss that is no number."""

    def forward(self, table: PairScores, batch: Batch) -> torch.Tensor:
        """NaN."""
        return table.sim.sum() * torch.nan


def test_negatives_are_mined_again_while_training(tree: Make, tmp_path: Path) -> None:
    settings = tree("edits", "given", batch_size=8, max_steps=6)
    settings |= MINING

    def trained_to(run: Run, step: int, drawn: list[Any]) -> Run:
        for batches in run.inputs():
            companion: Any = run.plan.objective.companions["remining"]
            expected = companion.neighbour[batches[0].ids["anchor"]]
            assert torch.equal(batches[0].ids["negative_3"], expected)  # not those of a search ago
            drawn.append(batches[0].ids["negative_3"].tolist())
            run.train_step(batches)
            if run.state.step == step:
                break
        return run

    once: list[Any] = []
    whole = trained_to(open_run(settings, str(tmp_path / "whole"), dtype=torch.float32), 6, once)
    searches: Any = whole.plan.objective.companions["remining"]
    assert int(searches.searches) == 3
    twice: list[Any] = []
    trained_to(open_run(settings, str(tmp_path / "run"), dtype=torch.float32), 3, twice).save()
    resumed = open_run(settings, str(tmp_path / "run"), dtype=torch.float32, resume=True)
    trained_to(resumed, 6, twice)
    assert twice == once
    state, wanted = resumed.plan.objective.state_dict(), whole.plan.objective.state_dict()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("shard", [False, True])
def test_every_device_mines_the_same(
    shard: bool, ranks: Any, still_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    arguments = (str(still_bert), str(pairs_file), str(tmp_path), shard)
    one, (first, second) = ranks[1].run(mined_again, *arguments)[0], ranks[2].run(mined_again, *arguments)
    assert torch.equal(first, second)
    assert float((first == one).float().mean()) > 0.9  # equal but for ties: steps on two devices round differently
