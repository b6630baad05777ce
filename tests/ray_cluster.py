"""A real Ray cluster on the loopback for tests, and its processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

MARK = "SENTEMB_TEST_CLUSTER"
MARKS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),  # Ray reads its own deprecated settings
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Running:
    """A cluster: where it listens, and a mark in its processes' environment."""

    address: str
    mark: str

    def processes(self, title: str = "") -> list[int]:
        """Its processes whose command line holds ``title``."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                is_ours = entry.name.isdigit() and f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes()
                if is_ours and title.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # ended meanwhile
                continue
        return found


@contextmanager
def running_cluster() -> Iterator[Running]:
    """A head with two processors; skips where Ray is not installed."""
    pytest.importorskip("ray", reason='pip install "sentemb[ray]"')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = Running(f"127.0.0.1:{port}", uuid.uuid4().hex)
    # sockets lie in it, whose paths may not be long
    temporary = Path(f"/tmp/sr-{cluster.mark[:8]}")
    # Ray's workers would give way to everything else on a busy machine
    environment = {
        **os.environ, MARK: cluster.mark, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RAY_worker_niceness": "0",
    }
    try:
        subprocess.run(
            [str(Path(sys.executable).with_name("ray")), "start", "--head", "--node-ip-address=127.0.0.1",
             f"--port={port}", "--num-cpus=2", "--num-gpus=0", "--object-store-memory=100000000",
             "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={temporary}"],
            # its daemons would keep a pipe open
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, timeout=120,
        )
        yield cluster
    finally:
        for pid in cluster.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)
