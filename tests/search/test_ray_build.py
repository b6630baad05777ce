"""Segments made on a real Ray cluster on this machine: the files of one process, also where a worker is killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray
from ray_cluster import MARKS, Running, running_cluster
from toy import vectors

from sentemb.encoder.ray_engine import Cluster
from sentemb.errors import ModelError, SearchError
from sentemb.search import SearchIndex
from sentemb.search.store.build import build, make_segments
from sentemb.search.store.disk import Disk
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.ray_build import ClusterSegments, finished

ROWS, DIMENSION = 24_000, 32
TEXTS = [f"{row}" for row in range(ROWS)]


class Table:
    """A text is a row's number, its vector that row."""

    source = "table"

    def __init__(self, factor: float = 1.0) -> None:
        self.rows = vectors(ROWS, DIMENSION) * np.float32(factor)

    def digest(self) -> str:
        return hashlib.sha256(self.rows.tobytes()).hexdigest()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.rows[[int(text) for text in texts]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with running_cluster() as running:
        yield running


@pytest.fixture
def one_thread() -> Iterator[None]:
    """FAISS links a graph's nodes in the order in which its threads arrive."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def make(folder: Path, options: BuildOptions, segments: Any = make_segments, **more: Any) -> SearchIndex:
    told = {"encoder": Table(), "overwrite": False, "disk": Disk(), **more}
    build(folder, TEXTS, options, vectors=None, source_name="numbers", resume=False, segments=segments, **told)
    return SearchIndex.open(folder, encoder=Table())


def files(folder: Path) -> dict[str, bytes]:
    """Everything that is the index; its manifest names what lies beside it."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def assert_same(one: SearchIndex, many: SearchIndex) -> None:
    found, wanted = files(many.folder), files(one.folder)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    queries = vectors(20, DIMENSION, seed=1)
    ours, theirs = (index.search_vectors(queries, 10) for index in (many, one))
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def on_ray(test: Any) -> Any:
    """Marks of a test that starts Ray."""
    for mark in MARKS:
        test = mark(test)
    return test


@on_ray
@pytest.mark.parametrize(
    ("kind", "rescore"), [("ivf-pq", True), ("sq8", False), ("binary", True), ("IVF16,Flat", False)],
)
def test_segments_are_those_of_one_process(
    kind: str, rescore: bool, cluster: Running, one_thread: None, tmp_path: Path
) -> None:
    options = BuildOptions(kind=kind, rescore=rescore, segment_rows=7000)  # the last segment is a short one
    one = make(tmp_path / "one", options)
    assert len(one.manifest.segments) == 4
    assert (one.manifest.template is None) == (kind == "binary")  # all others share one trained quantiser
    many = make(tmp_path / "many", options, ClusterSegments(tmp_path / "parts", Cluster(cluster.address)))
    assert_same(one, many)


@on_ray
def test_a_killed_worker_changes_nothing(cluster: Running, one_thread: None, tmp_path: Path) -> None:
    options = BuildOptions(kind="hnsw", segment_rows=4000)
    parts, killed = tmp_path / "parts", []

    def kill() -> None:
        while not killed:
            done, workers = len(list(parts.glob("segment-*"))), cluster.processes("MapWorker")
            if 1 <= done <= 3 and len(workers) == 2:
                killed.append(workers[0])
                os.kill(workers[0], signal.SIGKILL)
            if done == 6:
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    many = make(tmp_path / "many", options, ClusterSegments(parts, Cluster(cluster.address)))
    killer.join()
    assert killed, "the segments were made before a worker could be killed"
    assert_same(make(tmp_path / "one", options), many)


class _NoCommit(Disk):
    """Fails where a build commits."""

    def replace_text(self, path: Path, text: str) -> None:
        raise OSError("no space left")


@on_ray
def test_an_interrupted_build_makes_only_what_is_missing(cluster: Running, one_thread: None, tmp_path: Path) -> None:
    options = BuildOptions(kind="ivf-sq8", segment_rows=8000)
    old = make(tmp_path / "many", BuildOptions(kind="flat"))
    segments = ClusterSegments(tmp_path / "parts", Cluster(cluster.address))
    with pytest.raises(OSError, match="no space"):
        make(tmp_path / "many", options, segments, overwrite=True, disk=_NoCommit())
    assert SearchIndex.open(tmp_path / "many").manifest == old.manifest  # nothing counts before the commit
    made = sorted((tmp_path / "parts").glob("segment-*"))
    assert len(made) == 3
    damaged = next(made[1].glob("*.faiss"))
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.unlink()  # the index has this file, too
    damaged.write_bytes(content)
    assert [finished(folder) is None for folder in made] == [False, True, False]
    before = {folder: folder.stat().st_ino for folder in made}
    many = make(tmp_path / "many", options, segments, overwrite=True)
    assert sorted((tmp_path / "parts").glob("segment-*")) == made
    assert [folder.stat().st_ino == before[folder] for folder in made] == [True, False, True]
    make(tmp_path / "one", BuildOptions(kind="flat"))
    assert_same(make(tmp_path / "one", options, overwrite=True), many)


@on_ray
def test_a_killed_command_continues(cluster: Running, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"a dog plays song {row}\n" for row in range(9000)))

    def command(name: str, *engine: str) -> list[str]:
        return [sys.executable, "-m", "sentemb", "index", str(tmp_path / "texts.txt"), "-o", str(tmp_path / name), "-m",
                str(tiny_bert), "--precision", "fp32", "--kind", "hnsw", "--segment-rows", "1000", *engine]

    on_cluster = command("many", "--engine", "ray", "--address", cluster.address)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    parts = tmp_path / "many.shards" / "segments"
    process = subprocess.Popen(on_cluster, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(parts.glob("segment-*")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "many" / "manifest.json").exists()
    for told in (on_cluster, command("one")):
        done = subprocess.run(told, env=environment, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
    assert not parts.parent.exists()
    assert_same(*(SearchIndex.open(tmp_path / name) for name in ("one", "many")))


@on_ray
def test_a_worker_says_why_it_failed(cluster: Running, tmp_path: Path) -> None:
    options = BuildOptions(kind="sq8", metric="dot", rescore=True, segment_rows=20_000)
    with pytest.raises(ModelError, match="indexing on the cluster failed: SearchError: re-scoring keeps half"):
        make(tmp_path / "many", options, ClusterSegments(tmp_path / "parts", Cluster(cluster.address)),
             encoder=Table(1e6))
    assert not (tmp_path / "many" / "manifest.json").exists()


@on_ray
def test_without_a_cluster_there_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='pip install "sentemb[ray]"')
    with pytest.raises(ModelError, match="no Ray cluster there"):
        make(tmp_path / "many", BuildOptions(), ClusterSegments(tmp_path / "parts", Cluster("127.0.0.1:1")))


def test_vectors_of_an_array_stay_here(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="not from an array"):
        build(
            tmp_path / "many", None, BuildOptions(), encoder=None, vectors=vectors(10), source_name="", resume=False,
            overwrite=False, disk=Disk(), segments=ClusterSegments(tmp_path / "parts", Cluster()),
        )


def test_a_file_system_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_bytes(os.urandom(3_000_000))
    Disk().take(tmp_path / "old", tmp_path / "linked")
    assert (tmp_path / "linked").samefile(tmp_path / "old")

    def refuse(*_: object) -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    Disk().take(tmp_path / "old", tmp_path / "copied")
    assert not (tmp_path / "copied").samefile(tmp_path / "old")
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "old").read_bytes()
