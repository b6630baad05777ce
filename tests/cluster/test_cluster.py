"""Encoding and filling segments on a real Ray cluster on this machine, also where a worker or the command is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ray_cluster import MARKS, Running, running_cluster

from sentemb.cluster import Cluster
from sentemb.encoder import Encoder
from sentemb.errors import ModelError
from sentemb.search import SearchIndex
from sentemb.search.store.manifest import read_draft

pytestmark = MARKS
ROWS = 8000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(3)
    words = "the a man woman dog cat plays music guitar red blue river house song city team runs eats big small".split()
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("".join(" ".join(draw.choices(words, k=draw.randint(2, 20))) + f" {i}\n" for i in range(ROWS)))
    return path


def command(verb: list[str], texts: Path, output: Path, model: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "sentemb", *verb, str(texts), "-o", str(output), "--model", str(model),
            "--precision", "fp32", *options]


def run(words: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr


def killing(cluster: Running, is_time: Callable[[], bool]) -> tuple[threading.Thread, list[int], threading.Event]:
    """A thread that kills one worker when it is time to."""
    killed: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not killed and not is_over.is_set():
            workers = cluster.processes("ray::Worker")
            if is_time() and workers:
                killed.append(workers[0])
                os.kill(workers[0], signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread, killed, is_over


def test_encoding_where_a_worker_is_killed(cluster: Running, texts: Path, tiny_bert: Path, tmp_path: Path) -> None:
    one, many = tmp_path / "one.npy", tmp_path / "many.npy"
    run(command(["encode"], texts, one, tiny_bert, "--window", "1000"))
    thread, killed, is_over = killing(cluster, lambda: bool(cluster.processes("ray::Worker.call")))
    run(command(["encode"], texts, many, tiny_bert, "--window", "1000", "--ray", cluster.address))
    is_over.set()
    thread.join()
    assert killed, "the run was over before a worker could be killed"
    np.testing.assert_allclose(np.load(many), np.load(one), atol=1e-6)


def assert_same(one: SearchIndex, many: SearchIndex) -> None:
    assert [segment.rows for segment in many.manifest.segments] == [segment.rows for segment in one.manifest.segments]
    queries = ["a dog plays music", "the river city"]
    for ours, theirs in zip(many.search(queries, 10), one.search(queries, 10), strict=True):
        np.testing.assert_allclose([hit.score for hit in ours], [hit.score for hit in theirs], atol=1e-5)
        assert {hit.id for hit in ours[:5]} == {hit.id for hit in theirs[:5]}


def test_an_index_where_a_worker_and_then_the_command_is_killed(
    cluster: Running, texts: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    options = ["--kind", "sq8", "--set", "segment_rows=1500"]
    many = tmp_path / "many"
    words = command(["index", "build"], texts, many, tiny_bert, *options, "--ray", cluster.address)

    def has_made_a_segment() -> bool:
        draft = read_draft(many)
        return draft is not None and draft.made is not None and len(draft.made.segments) > 0

    thread, killed, is_over = killing(cluster, lambda: read_draft(many) is not None)
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (killed and has_made_a_segment()):
        time.sleep(0.01)
    process.kill()
    is_over.set()
    thread.join()
    assert process.wait() == -signal.SIGKILL, process.communicate()
    assert killed
    assert not (many / "manifest.json").exists()
    assert has_made_a_segment()
    run([*words, "--resume"])
    run(command(["index", "build"], texts, tmp_path / "one", tiny_bert, *options))
    assert_same(*(SearchIndex.open(tmp_path / name, encoder=Encoder.load(tiny_bert)) for name in ("one", "many")))


def test_faults_are_told(cluster: Running, tmp_path: Path) -> None:
    with Cluster(cluster.address) as connected:
        assert list(connected.spread(len, ["one", "three"])) == [3, 5]
        with pytest.raises(ModelError, match=r"a worker of the cluster failed: .*No such file"):
            list(connected.spread(os.stat, [tmp_path / "nothing"]))
    with pytest.raises(ModelError, match=r"no Ray cluster at 127\.0\.0\.1:1"), Cluster("127.0.0.1:1"):
        pass


def test_another_model_on_a_worker_is_refused(cluster: Running, tiny_bert: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_bert, copy)
    encoder = Encoder.load(copy, precision="fp32")
    encoder.prompts["query"] = "q: "  # decides vectors, so it is part of the digest
    with Cluster(cluster.address) as connected, pytest.raises(ModelError, match="another model on a worker"):
        connected.encoder(encoder).encode(["a dog"])
