"""Freed memory stays with the process that asked for it, unless the user has said otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

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
