"""Encoding on a real Ray cluster on this machine: the files of one process, also where a worker is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sentemb.encoder import Encoder
from sentemb.encoder.ray_engine import Cluster, EncodeJob, Shards
from sentemb.errors import ModelError

MARK = "SENTEMB_TEST_CLUSTER"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),  # Ray reads its own deprecated settings
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A head with two processors on the loopback; its address, and a mark in its processes' environment."""
    pytest.importorskip("ray", reason='pip install "sentemb[ray]"')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mark = uuid.uuid4().hex
    # sockets lie in it, whose paths may not be long
    temporary = Path(f"/tmp/sr-{mark[:8]}")
    # Ray's workers would give way to everything else on a busy machine
    environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RAY_worker_niceness": "0"}
    subprocess.run(
        [_ray(), "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2", "--num-gpus=0",
         "--object-store-memory=100000000", "--include-dashboard=false", "--disable-usage-stats",
         f"--temp-dir={temporary}"],
        # its daemons would keep a pipe open
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, timeout=120,
    )
    yield f"127.0.0.1:{port}", mark
    for pid in _processes(mark):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(temporary, ignore_errors=True)


def _ray() -> str:
    return str(Path(sys.executable).with_name("ray"))


def _processes(mark: str, title: str = "") -> list[int]:
    """Processes with the cluster's mark whose command line holds ``title``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_ours = entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes()
            if is_ours and title.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # ended meanwhile
            continue
    return found


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
    cluster: tuple[str, str], texts: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    address, mark = cluster
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    one, many = tmp_path / "one.parquet", tmp_path / "many.parquet"
    subprocess.run(_encode(one, texts, tiny_bert), check=True, env=environment, capture_output=True, timeout=300)
    process = subprocess.Popen(
        _encode(many, texts, tiny_bert, "--engine", "ray", "--address", address), env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    shards = tmp_path / "many.parquet.shards"
    killed = None
    while process.poll() is None and killed is None:
        done = len(list(shards.glob("vectors-*"))) if shards.exists() else 0
        workers = _processes(mark, "MapWorker")
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


def test_index_is_the_same(cluster: tuple[str, str], texts: Path, tiny_bert: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents.txt"
    lines = texts.read_text().splitlines()
    documents.write_text("\n".join([*lines[:9000], *lines[:500], *lines[9000:12000]]) + "\n")  # repeats across blocks
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--model", str(tiny_bert), "--precision", "fp32", "--kind", "sq8"]
    for name, engine in (("one", []), ("many", ["--engine", "ray", "--address", cluster[0]])):
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
    cluster: tuple[str, str], tiny_bert: Path, tmp_path: Path
) -> None:
    encoder = Encoder.load(tiny_bert, precision="fp32")
    job = EncodeJob(str(tiny_bert), encoder.digest(), precision="fp32")
    windows = [[f"a dog {i} {j}" for j in range(5)] for i in range(4)]
    shards = Shards(tmp_path / "shards", job, Cluster(cluster[0]))
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


def test_faults_are_told(cluster: tuple[str, str], tiny_bert: Path, tmp_path: Path) -> None:
    job = EncodeJob(str(tiny_bert), "another digest")
    with pytest.raises(ModelError, match="another model on this worker"):
        Shards(tmp_path / "shards", job, Cluster(cluster[0])).encode([["a"]])
    with pytest.raises(ModelError, match="no Ray cluster there"):
        Shards(tmp_path / "shards", job, Cluster("127.0.0.1:1")).encode([["a"]])
