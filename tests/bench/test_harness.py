"""The benchmark harness measures what it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "eval" / "bench"

CONTENDERS = """
import time

def sleeper(seconds, fail=False):
    if fail:
        raise RuntimeError("no such peer")
    calls = 0
    def work():
        nonlocal calls
        calls += 1
        print("noise on stdout")
        time.sleep(seconds)
        import numpy
        return {"calls": calls, "array": numpy.full((2, 3), calls, dtype="float32")}
    return work

def memory(mib):
    kept = []
    def work():
        kept.append(bytearray(mib << 20))
    return work

def ends():
    def work():
        raise SystemExit(3)
    return work
"""


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_harness", BENCH / "harness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "contenders.py"
    path.write_text(CONTENDERS)
    return str(path)


def test_a_race_times_every_round_and_survives_faults(harness: ModuleType, file: str) -> None:
    contenders = [
        harness.Contender("short", file, "sleeper", {"seconds": 0.0}),
        harness.Contender("long", file, "sleeper", {"seconds": 0.2}),
        harness.Contender("absent", file, "sleeper", {"seconds": 0.0, "fail": True}),
        harness.Contender("ends", file, "ends"),
        harness.Contender("unknown", file, "nobody"),
    ]
    lanes = harness.race(contenders, rounds=2, warmups=1, verbose=False)
    assert len(lanes["short"].seconds) == len(lanes["long"].seconds) == 2
    assert min(lanes["long"].seconds) >= 0.2
    assert lanes["long"].cpu_s[0] < lanes["long"].seconds[0]
    assert lanes["long"].facts["calls"] == 3  # one warm-up, two rounds
    assert np.load(lanes["long"].facts["array"]).tolist() == [[3.0] * 3] * 2
    assert lanes["absent"].fault == "RuntimeError: no such peer"
    assert "nobody" in lanes["unknown"].fault
    assert lanes["ends"].fault
    assert not lanes["ends"].seconds


def test_peak_memory_is_the_contenders_own(harness: ModuleType, file: str) -> None:
    lanes = harness.race(
        [harness.Contender(str(mib), file, "memory", {"mib": mib}) for mib in (1, 200)],
        rounds=1, warmups=0, verbose=False,
    )
    assert lanes["200"].peak_mib - lanes["1"].peak_mib > 150


def test_ratios_are_taken_within_a_round(harness: ModuleType) -> None:
    slow, fast = harness.Lane("slow", [2.0, 8.0, 3.0]), harness.Lane("fast", [1.0, 2.0, 1.0])
    found = harness.ratio(slow, fast)
    assert (found.median, found.least, found.most) == (3.0, 2.0, 4.0)
    assert str(found) == "3.00× (2.00–4.00)"


def test_a_lane_that_did_not_run_has_no_ratio_and_says_why(harness: ModuleType) -> None:
    lanes = {"ours": harness.Lane("ours", [1.0]), "theirs": harness.Lane("theirs", fault="no such peer")}
    assert str(harness.ratio(lanes["theirs"], lanes["ours"])) == "–"
    table = harness.lanes_table(["", "x", "y"], lanes, lambda lane: [lane.median_s, 2])
    assert table == "|  | x | y |\n|---|---:|---:|\n| ours | 1.0 | 2 |\n| theirs | did not run: no such peer |  |\n"


def test_reports_hold_every_round(harness: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    lanes = {"ours": harness.Lane("ours", [1.0, 2.0])}
    harness.write_report("speed", "Speed", "text\n", harness.machine(), {"r": lanes})
    report = (tmp_path / "speed.md").read_text()
    assert report.startswith("# Speed\n\n")
    assert report.endswith("\n\ntext\n")
    raw = json.loads((tmp_path / "speed.json").read_text())
    assert raw["races"]["r"]["ours"]["seconds"] == [1.0, 2.0]
