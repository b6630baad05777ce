"""How much memory a process may still take, containers' limits included."""

from __future__ import annotations

import os
from pathlib import Path

# (limit, what is used of it) of a container: version 2 and version 1 of Linux's control groups
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be taken now without swapping; None where the system does not say.

    Args:
        root: of the file system, for tests.
    """
    free = _of_machine(root)
    if free is None:
        return None
    for limit_file, used_file in _GROUPS:
        limit, used = _number(root / limit_file[1:]), _number(root / used_file[1:])
        if limit is not None and used is not None:
            free = min(free, max(limit - used, 0))
    return free


def _of_machine(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # not Linux
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # half of all there is: a careful guess
    except (AttributeError, ValueError, OSError):
        return None  # Windows


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None  # no such group, or "max": no limit
