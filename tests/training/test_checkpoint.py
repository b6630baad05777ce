from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from part_examples import tree_of
from rank_work import open_run
from safetensors.torch import load_file

from sentemb.encoder import Encoder
from sentemb.encoder.adapters import has_adapters
from sentemb.errors import MissingExtra, RecipeError
from sentemb.recipe.recipe import Recipe
from sentemb.training.callbacks import EvaluationEvent, StepEvent
from sentemb.training.checkpoint import fault_of, newest_checkpoint, save_tensors
from sentemb.training.monitor import Monitor
from sentemb.training.run_pages import read_metrics
from sentemb.training.settings import TrainSettings


def test_tied_tensors_are_written_under_each_name(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).view(2, 3)
    save_tensors({"a": tensor, "b": tensor, "c": tensor.T}, tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert torch.equal(found["a"], tensor)
    assert torch.equal(found["b"], tensor)
    assert torch.equal(found["c"], tensor.T)


def test_no_checkpoint_and_a_newer_format(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") == (None, [])
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    (folder / "SHA256.json").write_text("{}")
    (folder / "state.json").write_text('{"state": {"format": 99}}')
    assert "this sentemb reads" in str(fault_of(folder))


def test_patience_needs_evaluations() -> None:
    with pytest.raises(ValueError, match="needs eval_every"):
        TrainSettings(patience=1)


class _Accelerator:
    trackers: tuple[Any, ...] = ()


def test_monitor_forgets_steps_that_will_be_done_again(tmp_path: Path) -> None:
    def monitor(first: int) -> Monitor:
        return Monitor(tmp_path, total_steps=9, first_step=first, log_every=2, accelerator=_Accelerator())

    with monitor(0) as first:
        for step in range(1, 6):
            losses = {"loss": torch.tensor(float(step))}
            first.on_step(StepEvent(step=step, total_steps=9, losses=losses, learning_rate=0.1))
        scores = {"a": 40.0, "b": 60.0}
        first.on_evaluation(
            EvaluationEvent(step=5, score=50.0, scores=scores, is_best=True, evaluations_since_best=0)
        )
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [2, 4, 5, 5]
    assert [entry.get("loss/loss") for entry in read_metrics(tmp_path)] == [1.5, 3.5, 5.0, None]
    assert read_metrics(tmp_path)[-1] == {"step": 5, "dev": 50.0, "is_best": True, "dev/a": 40.0, "dev/b": 60.0}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    with monitor(4):
        pass
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [2, 4]


# ------------------------------------------------------------------------------------------------- adapters
def test_adapters_alone_learn_and_are_merged_on_export(tiny_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason='pip install "sentemb[peft]"')
    run = open_run(tree_of("adapters", "lora", str(tiny_bert), str(pairs_file), learning_rate=0.05), str(tmp_path),
                   dtype=torch.float32)
    backbone = run.plan.encoder.module.backbone
    assert has_adapters(backbone)
    frozen = {name: parameter.clone() for name, parameter in backbone.named_parameters() if "lora_" not in name}
    before = run.plan.encoder.encode(["a red dog runs", "music"], precision="fp32")
    for step in range(3):
        run.step([run.make_input(np.arange(7), step)])
    after = run.plan.encoder.encode(["a red dog runs", "music"], precision="fp32")
    assert np.abs(after - before).max() > 1e-2
    assert all(torch.equal(frozen[name], value) for name, value in backbone.named_parameters() if name in frozen)
    digest = run.plan.encoder.digest()
    run.plan.encoder.save(tmp_path / "model")
    assert not any("lora" in name for name in load_file(tmp_path / "model" / "model.safetensors"))
    loaded = Encoder.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.encode(["a red dog runs", "music"], precision="fp32"), after, atol=1e-5)
    assert loaded.digest() == digest
    assert has_adapters(backbone)


@pytest.mark.parametrize(
    ("lora", "match"),
    [({"rank": 0}, "rank = 0"), ({"rnk": 2}, "rank"), ({"targets": 3}, "targets"), ({"use": "lara"}, "mean lora")],
)
def test_wrong_adapters_are_told(lora: Any, match: str, tiny_bert: Path, pairs_file: Path) -> None:
    tree = tree_of("heads", "mlp", str(tiny_bert), str(pairs_file))
    tree["encoder"]["adapters"] = [{"use": "lora", **lora}]
    with pytest.raises(RecipeError, match=match):
        Recipe.from_tree(tree, "r.toml")


def test_missing_peft_is_told(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from sentemb.encoder.adapters import Lora

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"sentemb\[peft\]"):
        Lora().add_to(Encoder.load(tiny_bert).module.backbone)
