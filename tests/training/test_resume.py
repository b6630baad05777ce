"""An interrupted run that is resumed ends with the bits of one that was never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from part_examples import tree_of
from run_work import complete, finish, kill_at, said_by, start
from safetensors.torch import load_file

STEPS = 9
KILLS = 5

QUICK = ("queue in chunks",)
RUNS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "dropout and dev score": (("heads", "mlp"), {"eval_every": 3, "save_every": 2}),
    "queue in chunks": (("edits", "queue"), {"chunk_size": 5, "gradient_accumulation": 2, "save_every": 1}),
    "detector": (("companions", "detector"), {"save_every": 2}),
    "prefix": (("adapters", "prefix"), {"save_every": 2, "chunk_size": 5}),
    "memory of examples": (("companions", "per_example"), {"save_every": 1}),
    "keys of the average": (("edits", "soften"), {"save_every": 2}),
    "clusters": (("companions", "clusters"), {"save_every": 2}),
    "batches of clusters": (
        ("companions", "prototypes"),
        {"save_every": 2, "batches": {"use": "grouped", "by": "prototypes", "groups": 2}},
    ),
    "mixture": (("views", "by_source"), {"save_every": 2}),
    "sampled positives": (("companions", "propensity"), {"save_every": 3, "schedule": "cosine"}),
}


@pytest.fixture(scope="module")
def dev_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(1)
    words = "man woman dog cat plays music guitar red blue river house song city team".split()
    lines = ["sentence1\tsentence2\tscore"]
    for row in range(20):
        lines.append(f"{' '.join(draw.choices(words, k=5))}\t{' '.join(draw.choices(words, k=4))}\t{row % 6}")
    path = tmp_path_factory.mktemp("dev") / "dev.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def recipe(name: str, tiny_bert: Path, pairs_file: Path, dev_file: Path) -> dict[str, Any]:
    part, train = RUNS[name]
    tree = tree_of(*part, str(tiny_bert), str(pairs_file), max_steps=STEPS, epochs=20, log_every=1, **train)
    if "eval_every" in train:
        tree["dev"] = [{"use": "sts", "path": str(dev_file)}]
    return tree


def bits(run_dir: Path) -> dict[str, bytes]:
    """Everything that must be equal: the model, the last checkpoint's tensors, the log."""
    last = max((run_dir / "checkpoints").glob("step-*"))
    files = [run_dir / "model" / "model.safetensors", run_dir / "best.safetensors", *sorted(last.glob("*.safetensors"))]
    found = {str(path.relative_to(run_dir)): path.read_bytes() for path in files}
    log = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {**found, "log": json.dumps(log).encode()}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_killed_and_resumed(name: str, tiny_bert: Path, pairs_file: Path, dev_file: Path, tmp_path: Path) -> None:
    tree = recipe(name, tiny_bert, pairs_file, dev_file)
    assert complete(tree, tmp_path / "whole", resume=False)[:2] == ("done", STEPS)
    draw, kills = random.Random(name), 0
    while kills < KILLS:
        # a run that has no step left is started over in a new folder
        folder = tmp_path / f"killed-{kills}"
        for step in sorted(draw.sample(range(1, STEPS), 3)):
            kills += kill_at(step, tree, folder, draw)
        assert complete(tree, folder)[:2] == ("done", STEPS)
        assert bits(folder) == bits(tmp_path / "whole")


def test_interrupted_by_a_signal_saves_first(tiny_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    tree = tree_of("edits", "queue", str(tiny_bert), str(pairs_file), max_steps=40, epochs=20, log_every=1)
    process, pipe = start(tree, tmp_path / "run")
    while pipe.recv() != ("step", 3):
        pass
    process.terminate()
    said = finish(pipe)
    assert said[:2] == ("error", "Interrupted")
    assert "--resume" in said[2]
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1
    assert complete(tree, tmp_path / "run")[:2] == ("done", 40)
    complete(tree, tmp_path / "whole")
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")


@pytest.mark.parametrize(
    "damage",
    ["flipped bit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cut short", "missing", "no checksums"))],
)
def test_damaged_newest_checkpoint_falls_back(damage: str, tiny_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    tree = tree_of("heads", "mlp", str(tiny_bert), str(pairs_file), max_steps=6, epochs=20, save_every=2, log_every=1)
    complete(tree, tmp_path / "whole")
    process, pipe = start(tree, tmp_path / "run")
    while pipe.recv() != ("step", 5):
        pass
    process.kill()
    process.join()
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert newest.name == "step-00000004"
    file = newest / ("SHA256.json" if damage == "no checksums" else "optimizer.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "flipped bit":
        content[-7] ^= 4
        file.write_bytes(content)
    elif damage == "cut short":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    assert complete(tree, tmp_path / "run")[0] == "done"
    said = said_by(tmp_path / "run").read_text()
    assert f"WARNING: {newest}" in said
    assert "resumed at step 2" in said
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")


def test_other_recipe_is_refused(tiny_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    tree = tree_of("heads", "mlp", str(tiny_bert), str(pairs_file), max_steps=2)
    complete(tree, tmp_path)
    other = {**tree, "train": {**tree["train"], "learning_rate": 2e-3}}
    said = complete(other, tmp_path)
    assert said[:2] == ("error", "CheckpointError")
    assert "another recipe" in said[2]


def test_full_disk_keeps_the_previous_checkpoint(tiny_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    tree = tree_of("heads", "mlp", str(tiny_bert), str(pairs_file), max_steps=6, epochs=20, save_every=2, log_every=1)
    said = complete(tree, tmp_path / "run", file_limit_after=3)
    assert said[:2] == ("error", "CheckpointError")
    assert "could not be saved" in said[2]
    assert "untouched" in said[2]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    assert complete(tree, tmp_path / "run")[0] == "done"
    complete(tree, tmp_path / "whole")
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")


def test_resumes_on_another_number_of_devices(still_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    train = {"max_steps": 6, "epochs": 20, "save_every": 3, "log_every": 1}
    tree = tree_of("edits", "queue", str(still_bert), str(pairs_file), **train)
    complete(tree, tmp_path / "whole")
    process, pipe = start(tree, tmp_path / "run")
    while pipe.recv() != ("step", 4):
        pass
    process.kill()
    process.join()
    runs = [start(tree, tmp_path / "run", rank=rank, world=2, store=str(tmp_path / "store")) for rank in range(2)]
    assert [finish(pipe)[:2] for _, pipe in runs] == [("done", 6)] * 2
    assert "last bits may differ" in said_by(tmp_path / "run").read_text()
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "run"))
    for key, value in one.items():
        assert float((value - two[key]).abs().max()) < 1e-4, key
    for (_, entry), (_, other) in zip(*(enumerate(_losses(tmp_path / name)) for name in ("whole", "run")), strict=True):
        assert entry == pytest.approx(other, rel=1e-4)


def _losses(run_dir: Path) -> list[float]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [entry["loss/info_nce"] for entry in map(json.loads, lines) if "loss/info_nce" in entry]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_lost_device_ends_the_run_with_one_message(
    end: int, tiny_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    train = {"max_steps": 500, "epochs": 500, "save_every": 2, "log_every": 1, "device_timeout_s": 4}
    tree = tree_of("heads", "mlp", str(tiny_bert), str(pairs_file), **train)
    runs = [start(tree, tmp_path / "run", rank=rank, world=2, store=str(tmp_path / "store")) for rank in range(2)]
    try:
        while runs[0][1].recv() != ("step", 5):
            pass
        os.kill(runs[1][0].pid, end)
        said = finish(runs[0][1], within_s=60)
    finally:
        runs[1][0].kill()
    assert said[:2] == ("error", "DeviceLost")
    assert "step-00000004" in said[2]
    assert "--resume" in said[2]


def torchrun(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``tree.json`` on two devices, of which one kills itself once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("faulty_train.py")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=2",
        "--master-addr=127.0.0.1", f"--master-port={port}", str(script), str(folder / "tree.json"),
        str(folder / "run"), str(folder / "mark"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SENTEMB_QUIET": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.slow
def test_torchrun_restarts_from_the_last_checkpoint(tiny_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    train = {"max_steps": 8, "epochs": 20, "save_every": 2, "log_every": 1, "device_timeout_s": 60}
    tree = tree_of("heads", "mlp", str(tiny_bert), str(pairs_file), **train)
    (tmp_path / "tree.json").write_text(json.dumps(tree))
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mark").exists()
    assert "resumed at step 4 of 8" in done.stderr
    runs = [start(tree, tmp_path / "whole", rank=rank, world=2, store=str(tmp_path / "store")) for rank in range(2)]
    assert [finish(pipe)[0] for _, pipe in runs] == ["done", "done"]
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")
