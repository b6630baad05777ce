"""Weights dealt to two devices (FSDP2): checkpoints, resuming to the bit, dev evaluations, and one device's results."""

from __future__ import annotations

import json
import os
import random
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from part_examples import tree_of
from run_work import complete, finish, said_by, start
from safetensors.torch import load_file

STEPS = 8
TRAIN = {"max_steps": STEPS, "epochs": 20, "log_every": 1, "save_every": 2, "eval_every": 4, "device_timeout_s": 60}
PARTS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "batchnorm head": (("heads", "projector"), {}),
    "queue of a momentum copy in chunks": (("edits", "queue"), {"chunk_size": 3, "gradient_accumulation": 2}),
    "detector, no clipping": (("companions", "detector"), {"max_grad_norm": 0}),
}


@pytest.fixture(scope="module")
def dev_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(1)
    words = "man woman dog cat plays music guitar red blue river house song city team".split()
    rows = [f"{' '.join(draw.choices(words, k=5))}\t{' '.join(draw.choices(words, k=4))}\t{i % 6}" for i in range(20)]
    path = tmp_path_factory.mktemp("dev") / "dev.tsv"
    path.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n")
    return path


def recipe(name: str, backbone: Path, pairs_file: Path, dev_file: Path, *, shard: bool = True) -> dict[str, Any]:
    part, train = PARTS[name]
    tree = tree_of(*part, str(backbone), str(pairs_file), **TRAIN, shard=shard, **train)
    tree["dev"] = [{"use": "sts", "path": str(dev_file)}]
    return tree


def together(tree: dict[str, Any], folder: Path, name: str) -> list[tuple[Any, ...]]:
    """A run on two devices from start (or a checkpoint) to end: what each of them says last."""
    runs = _pair(tree, folder, name)
    said = [finish(pipe) for _, pipe in runs]
    for process, _ in runs:
        process.join()
    return said


def killed(tree: dict[str, Any], folder: Path, name: str, *, after: int) -> None:
    """A run on two devices, of which both are killed some time after a step."""
    runs = _pair(tree, folder, name)
    try:
        while runs[0][1].recv() != ("step", after):
            pass
    finally:
        for process, _ in runs:
            os.kill(process.pid, signal.SIGKILL)
            process.join()


def _pair(tree: dict[str, Any], folder: Path, name: str) -> list[tuple[Any, Connection]]:
    store = folder / f"store-{len(list(folder.glob('store-*')))}"  # a new one for every start
    return [start(tree, folder / name, rank=rank, world=2, store=str(store)) for rank in range(2)]


def contents(run_dir: Path) -> dict[str, bytes]:
    """Model, best and last checkpoint's tensors, the log with its dev scores."""
    last = max((run_dir / "checkpoints").glob("step-*"))
    files = [run_dir / "model" / "model.safetensors", run_dir / "best.safetensors", *sorted(last.glob("*.safetensors"))]
    found = {str(path.relative_to(run_dir)): path.read_bytes() for path in files}
    return {**found, "log": (run_dir / "metrics.jsonl").read_bytes()}


def scores(run_dir: Path) -> dict[int, float]:
    """Dev scores by step."""
    entries = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {entry["step"]: entry["dev"] for entry in entries if "dev" in entry}


@pytest.mark.parametrize(
    "name", [name if place == 0 else pytest.param(name, marks=pytest.mark.slow) for place, name in enumerate(PARTS)]
)
def test_killed_and_resumed_to_the_bit(
    name: str, tiny_bert: Path, pairs_file: Path, dev_file: Path, tmp_path: Path
) -> None:
    tree = recipe(name, tiny_bert, pairs_file, dev_file)  # with dropout: every device's generator is restored too
    whole = together(tree, tmp_path, "whole")
    assert [said[:2] for said in whole] == [("done", STEPS)] * 2, whole
    killed(tree, tmp_path, "run", after=5)
    assert max((tmp_path / "run" / "checkpoints").glob("step-*")).name == "step-00000004"
    again = together(tree, tmp_path, "run")
    assert "resumed at step 4 of 8" in said_by(tmp_path / "run").read_text()
    assert [said[:3] for said in again] == [said[:3] for said in whole]
    found, wanted = contents(tmp_path / "run"), contents(tmp_path / "whole")
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if found[key] != wanted[key]] == []
    assert sorted(scores(tmp_path / "run")) == [4, 8]


@pytest.mark.slow
def test_checkpoints_and_scores_are_those_of_one_device(
    still_bert: Path, pairs_file: Path, dev_file: Path, tmp_path: Path
) -> None:
    name = "queue of a momentum copy in chunks"
    assert complete(recipe(name, still_bert, pairs_file, dev_file, shard=False), tmp_path / "one")[0] == "done"
    tree = recipe(name, still_bert, pairs_file, dev_file)
    assert [said[0] for said in together(tree, tmp_path, "two")] == ["done", "done"]
    assert scores(tmp_path / "two") == pytest.approx(scores(tmp_path / "one"), abs=0.1)
    last = f"checkpoints/step-{STEPS:08d}"
    for file in ("objective", "companions", "optimizer"):
        one, two = (load_file(tmp_path / run / last / f"{file}.safetensors") for run in ("one", "two"))
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert two[key].shape == value.shape  # whole tensors, not a device's part of them
            assert float((value.double() - two[key].double()).abs().max()) < 1e-4, key


@pytest.mark.slow
def test_a_sharded_run_goes_on_on_one_device(
    still_bert: Path, pairs_file: Path, dev_file: Path, tmp_path: Path
) -> None:
    # not the BatchNorm head: it undoes shifts, so their gradients are rounding errors, and Adam enlarges those
    tree = recipe("queue of a momentum copy in chunks", still_bert, pairs_file, dev_file)
    assert complete(tree, tmp_path / "whole")[0] == "done"  # one device has nothing to deal out to
    killed(tree, tmp_path, "run", after=5)
    assert complete(tree, tmp_path / "run")[:2] == ("done", STEPS)
    assert "resuming a run of 2 devices on 1" in said_by(tmp_path / "run").read_text()
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "run"))
    for key, value in one.items():
        assert float((value - two[key]).abs().max()) < 1e-4, key
