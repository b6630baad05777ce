"""Kills, full disks and failing flushes: nothing acknowledged is lost, nothing else appears half."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Self

import killed_writer
import numpy as np
import pytest
from killed_writer import FIRST
from killed_writer import contents as _contents
from toy import ToyEncoder

from sentemb.errors import SearchError
from sentemb.search import Document, SearchIndex
from sentemb.search.store import disk


def _kill_often(folder: Path, kills: int, seed: int, kind: str) -> None:
    script = Path(killed_writer.__file__)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SENTEMB_QUIET": "1"}
    arguments = [sys.executable, str(script), str(folder), str(kills), str(seed), kind]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"'kills': {kills}" in done.stdout


def test_killed_writer_loses_nothing(tmp_path: Path) -> None:
    _kill_often(tmp_path / "ix", 30, 1, "flat")


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kind"), [(11, "flat"), (12, "IVF4,Flat"), (13, "hnsw"), (14, "sq8")])
def test_killed_writer_loses_nothing_many_times(seed: int, kind: str, tmp_path: Path) -> None:
    _kill_often(tmp_path / "ix", 60, seed, kind)


OPERATIONS = ("write", "fsync", "sync_folder", "rename", "connect", "remove")
FAILING = {"full": ("write", "connect"), "fsync": ("fsync", "sync_folder"), "rename": ("rename",),
           "killed": OPERATIONS}  # fmt: skip


class FaultyDisk:
    """Inside ``with``, counts operations and fails from one of them on: full, or with flushes that report an error."""

    def __init__(self, fail_at: int, fault: str) -> None:
        self.fail_at, self.fault = fail_at, fault
        self.count = 0
        self.failed = False

    def __enter__(self) -> Self:
        self._patch = pytest.MonkeyPatch()
        for name in OPERATIONS:
            self._patch.setattr(disk, name, partial(self._do, name, getattr(disk, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _do(self, name: str, operation: Any, *given: Any) -> Any:
        self.count += 1
        if self.count < self.fail_at or name not in FAILING[self.fault]:
            if name == "write" and len(given[1]) > 1000:  # a disk may also take only a part of what it is given
                given = given[0], given[1][: len(given[1]) // 2]
            return operation(*given)
        self.failed = True
        if name == "connect" and self.fault == "full":
            connection = operation(*given)
            connection.execute("PRAGMA max_page_count=1")  # SQLite's own "database or disk is full"
            return connection
        raise OSError(errno.ENOSPC if self.fault == "full" else errno.EIO, "injected", name)


CHANGES = {
    "add": lambda index: index.add([Document(1000 + i, f"new {i}") for i in range(5)]),
    "upsert": lambda index: index.upsert([Document(i, f"other {i}") for i in range(5)]),
    "delete": lambda index: index.delete([1, 2, 3]),
    "compact": lambda index: index.compact(),
}


@pytest.mark.parametrize("fault", ["full", "fsync", "rename", "killed"])
@pytest.mark.parametrize("change", list(CHANGES))
def test_failing_disk_leaves_the_old_state(change: str, fault: str, tmp_path: Path) -> None:
    index = SearchIndex.build(tmp_path, [Document(i, f"first {i}") for i in range(40)], encoder=ToyEncoder())
    index.delete([9])
    failures = 0
    for fail_at in range(1, 100):
        faulty = FaultyDisk(fail_at, fault)
        before = _contents(SearchIndex.open(tmp_path, encoder=ToyEncoder()))
        writer = SearchIndex.open(tmp_path, encoder=ToyEncoder())
        try:
            with faulty:
                CHANGES[change](writer)
        except (OSError, SearchError):
            failures += 1
            # what is reported as failed did not happen, in the folder and in the handle
            assert _contents(SearchIndex.open(tmp_path, encoder=ToyEncoder())) == before
            assert _contents(writer) == before
            continue
        break
    # only clean-up after the commit may fail unnoticed
    assert not faulty.failed or fault == "killed"
    assert failures >= 1
    changed = SearchIndex.open(tmp_path, encoder=ToyEncoder())
    assert _contents(changed) == _contents(writer)
    changed.verify()


class StoppedDisk(FaultyDisk):
    """Ctrl-C during one of the operations, also those that tidy up after the commit."""

    def _do(self, name: str, operation: Any, *given: Any) -> Any:
        self.count += 1
        if self.count == self.fail_at:
            raise KeyboardInterrupt
        return operation(*given)


@pytest.mark.parametrize("change", [*CHANGES, "build"])
def test_stopping_anywhere_leaves_the_old_or_the_new_state(change: str, tmp_path: Path) -> None:
    def first() -> SearchIndex:
        documents = [Document(i, f"first {i}") for i in range(40)]
        index = SearchIndex.build(tmp_path, documents, encoder=ToyEncoder(), overwrite=True)
        index.delete([9])
        return index

    before = _contents(first())
    states = []
    for stop_at in range(1, 100):
        writer = SearchIndex.open(tmp_path, encoder=ToyEncoder())
        try:
            with StoppedDisk(stop_at, "stopped"):
                if change == "build":
                    SearchIndex.build(
                        tmp_path, [Document(1, "other")], encoder=ToyEncoder(), overwrite=True, resume=True
                    )
                else:
                    CHANGES[change](writer)
        except KeyboardInterrupt:
            now = SearchIndex.open(tmp_path, encoder=ToyEncoder())
            now.verify()
            states.append(_contents(now))
            if states[-1] != before:
                first()
            continue
        break
    after = _contents(SearchIndex.open(tmp_path, encoder=ToyEncoder()))
    assert all(state in (before, after) for state in states)
    assert before in states
    assert after in states


@pytest.mark.parametrize("fault", ["full", "fsync", "rename"])
def test_failing_disk_during_a_build_leaves_no_index_or_the_old_one(fault: str, tmp_path: Path) -> None:
    documents = [Document(i, f"first {i}") for i in range(40)]
    for fail_at in range(1, 100):
        try:
            with FaultyDisk(fail_at, fault):
                index = SearchIndex.build(tmp_path, documents, encoder=ToyEncoder(), overwrite=True)
        except (OSError, SearchError):
            with pytest.raises(SearchError):
                SearchIndex.open(tmp_path)
            continue
        break
    assert fail_at > 2
    assert _contents(index) == FIRST


def _random_life(seed: int, steps: int, kind: str, folder: Path) -> None:
    """Random operations against a plain dictionary."""
    draw = random.Random(seed)
    encoder = ToyEncoder()
    model: dict[int, str] = {i: f"first {i}" for i in range(30)}
    documents = [Document(i, text) for i, text in model.items()]
    index = SearchIndex.build(folder, documents, encoder=encoder, kind=kind, target_recall=1.0)
    for number in range(steps):
        ids = draw.sample(range(50), draw.randint(1, 6))
        operation = draw.choice(["add", "upsert", "upsert", "delete", "delete", "compact", "open", "refuse"])
        texts = {name: f"w{draw.randint(0, 9)} step {number} id {name}" for name in ids}
        if operation == "add":
            fresh = {name: text for name, text in texts.items() if name not in model}
            assert index.add([Document(name, text) for name, text in fresh.items()]) == len(fresh)
            model.update(fresh)
        elif operation == "upsert":
            assert index.upsert([Document(name, text) for name, text in texts.items()]) == len(texts)
            model.update(texts)
        elif operation == "delete":
            assert index.delete(ids) == len(model.keys() & set(ids))
            model = {name: text for name, text in model.items() if name not in ids}
        elif operation == "compact":
            index.compact()
        elif operation == "open":
            index = SearchIndex.open(folder, encoder=encoder, mapped=draw.random() < 0.5)
        elif model:
            with pytest.raises(Exception, match="in the index already"):
                index.add([Document(999, "x"), Document(draw.choice(list(model)), "y")])
        assert _contents(index) == model
        assert len(index) == len(model)
        query = f"w{draw.randint(0, 9)} step id"
        hits = index.search(query, 5)
        vectors = {name: encoder.encode([text])[0] for name, text in model.items()}
        wanted = encoder.encode([query])[0]
        cosines = {n: float(v @ wanted / np.linalg.norm(v) / np.linalg.norm(wanted)) for n, v in vectors.items()}
        best = sorted(cosines.values(), reverse=True)[:5]
        tolerance = 0.02 if kind == "sq8" else 1e-4
        assert [hit.score for hit in hits] == pytest.approx(best, abs=tolerance)
        assert all(hit.text == model[int(hit.id)] for hit in hits)


@pytest.mark.parametrize(("seed", "kind"), [(1, "flat"), (2, "IVF4,Flat"), (3, "hnsw"), (4, "sq8")])
def test_random_operations_match_a_dictionary(seed: int, kind: str, tmp_path: Path) -> None:
    _random_life(seed, 25, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_long_random_lives_match_a_dictionary(seed: int, tmp_path: Path) -> None:
    _random_life(seed, 120, ["flat", "IVF4,Flat", "hnsw", "sq8"][seed % 4], tmp_path)
