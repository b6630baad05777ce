"""Processors and memory, also where the system does not say; freed memory that stays with the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sentemb.machine import resources


def test_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(os, "sched_getaffinity"):
        assert resources.cpu_count() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")
    assert resources.cpu_count() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert resources.cpu_count() == 1


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    monkeypatch.setattr(resources, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    assert resources.free_memory() == 8000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.free_memory() == 8000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert resources.free_memory() == 4000


def test_other_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 100}.__getitem__, raising=False)
    assert resources.free_memory() == 4096 * 50
    monkeypatch.delattr(os, "sysconf")
    assert resources.free_memory() is None


# page faults of taking and freeing 8 MiB fifty times, after one round that warms up
PROBE = """
import resource, torch
from sentemb.machine.resources import keep_freed_memory
torch.empty(1 << 21).fill_(1)
keep_freed_memory()
torch.empty(1 << 21).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.empty(1 << 21).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(**environment: str) -> int:
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", PROBE], env=clean | environment, capture_output=True, text=True,
                          check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")
def test_freed_memory_is_used_again_unless_the_user_chose() -> None:
    assert 4 * page_faults() < page_faults(MALLOC_MMAP_THRESHOLD_="1048576")


@pytest.mark.parametrize(("running", "chosen", "policy"), [
    (3, {}, "PASSIVE"), (2, {}, "PASSIVE"), (1, {}, None), (9, {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
    (9, {"GOMP_SPINCOUNT": "10"}, None),
])  # fmt: skip
def test_waiting_threads_sleep_on_a_busy_machine(
    running: int, chosen: dict[str, str], policy: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stat").write_text(f"cpu  1 2 3\nprocs_running {running}\nprocs_blocked 0\n")
    monkeypatch.setattr(resources, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "environ", dict(chosen))
    resources.share_processors()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_threads_that_want_a_processor_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if resources._STAT.is_file():
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
        try:
            assert any(resources.busy_processors() >= 3 for _ in range(100))
        finally:
            for other in others:
                other.kill()
                other.wait()
    monkeypatch.setattr(resources, "_STAT", tmp_path / "none")
    assert resources.busy_processors() == 0


def test_sharing_too_late_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    monkeypatch.setattr(os, "environ", {})
    with pytest.warns(UserWarning, match="call it first"):
        resources.share_processors()
    assert "OMP_WAIT_POLICY" not in os.environ
