"""Encoding on a real Ray cluster on this machine: the files of one process, also where a worker is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ray_cluster import MARKS, Running, running_cluster

from sentemb.encoder import Encoder
from sentemb.encoder.ray_engine import Cluster, EncodeJob, Shards
from sentemb.errors import ModelError

pytestmark = MARKS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(3)
    words = "the a man woman dog cat plays music guitar red blue river house song city team runs eats big small".split()
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("".join(" ".join(draw.choices(words, k=draw.randint(2, 20))) + f" {i}\n" for i in range(24_000)))
    return path


def _encode(output: Path, texts: Path, model: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "sentemb", "encode", str(texts), "-o", str(output), "--model", str(model),
            "--window", "1000", "--precision", "fp32", *options]


def test_a_killed_worker_changes_nothing(
    cluster: Running, texts: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    one, many = tmp_path / "one.parquet", tmp_path / "many.parquet"
    subprocess.run(_encode(one, texts, tiny_bert), check=True, env=environment, capture_output=True, timeout=300)
    process = subprocess.Popen(
        _encode(many, texts, tiny_bert, "--engine", "ray", "--address", cluster.address), env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    shards = tmp_path / "many.parquet.shards"
    killed = None
    while process.poll() is None and killed is None:
        done = len(list(shards.glob("vectors-*"))) if shards.exists() else 0
        workers = cluster.processes("MapWorker")
        if done >= 3 and len(workers) == 2:
            killed = workers[0]
            os.kill(killed, signal.SIGKILL)
            assert done < 24
        time.sleep(0.01)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert killed is not None, "the run was over before a worker could be killed"
    assert many.read_bytes() == one.read_bytes()
    assert not shards.exists()


def test_index_is_the_same(cluster: Running, texts: Path, tiny_bert: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents.txt"
    lines = texts.read_text().splitlines()
    documents.write_text("\n".join([*lines[:9000], *lines[:500], *lines[9000:12000]]) + "\n")  # repeats across blocks
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--model", str(tiny_bert), "--precision", "fp32", "--kind", "sq8", "--segment-rows", "5000"]
    for name, engine in (("one", []), ("many", ["--engine", "ray", "--address", cluster.address])):
        command = [sys.executable, "-m", "sentemb", "index", str(documents), "-o", str(tmp_path / name)]
        command += [*options, *engine]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
    one, many = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.suffix not in ("", ".json")}
        for name in ("one", "many")
    )
    assert one
    assert one.keys() == many.keys()
    for name in one:
        assert one[name] == many[name], name


def test_shards_that_are_there_are_not_made_again(
    cluster: Running, tiny_bert: Path, tmp_path: Path
) -> None:
    encoder = Encoder.load(tiny_bert, precision="fp32")
    job = EncodeJob(str(tiny_bert), encoder.digest(), precision="fp32")
    windows = [[f"a dog {i} {j}" for j in range(5)] for i in range(4)]
    shards = Shards(tmp_path / "shards", job, Cluster(cluster.address))
    shards.encode(windows)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("vectors-*")}
    assert len(before) == 4
    gone = sorted(before)[2]
    (tmp_path / "shards" / gone).unlink()
    windows[0][0] = "another text"
    shards.encode(windows)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("vectors-*")}
    assert {name for name in before if after[name] == before[name]} == set(before) - {gone}
    assert len(set(after) - set(before)) == 1
    for (found, vectors), window in zip(shards.read(), windows, strict=True):
        assert found == window
        assert np.array_equal(vectors, encoder.encode(window))


def test_faults_are_told(cluster: Running, tiny_bert: Path, tmp_path: Path) -> None:
    job = EncodeJob(str(tiny_bert), "another digest")
    with pytest.raises(ModelError, match="another model on this worker"):
        Shards(tmp_path / "shards", job, Cluster(cluster.address)).encode([["a"]])
    with pytest.raises(ModelError, match="no Ray cluster there"):
        Shards(tmp_path / "shards", job, Cluster("127.0.0.1:1")).encode([["a"]])
