"""How many processors and how much memory this process may use, and how it hands memory back."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 256 << 20  # bytes free at the heap's end before they go back to the system
_ON_THE_HEAP = 64 << 20  # larger requests still get pages of their own, which go back when they are freed
_STAT = Path("/proc/stat")
# PyTorch on Linux and macOS, on Windows, on GPUs, its copies of C++'s own, cuBLAS, and oneDNN, which says no more than
# this where memory for its code or its matrices lacks
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc", "_ALLOC_FAILED",
                  "could not create a primitive", "could not create a memory")


def cpu_count() -> int:
    """Processors that this process may use: those it is bound to, where the system can bind it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int | None:
    """Bytes of memory that this process can still take, a container's limit included; None: the system does not say.

    Linux counts what it would give up for it (caches); elsewhere half of the machine's memory is taken to be free.
    """
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (AttributeError, ValueError, OSError):  # Windows
            return None
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        free = min(free, limit - int((_CGROUP / "memory.current").read_text(encoding="ascii")))
    return max(free, 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice: Python's and NumPy's ``MemoryError``, or a ``RuntimeError`` of
    PyTorch, which has a type of its own for it on GPUs alone."""
    is_runtime = isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or is_runtime


def share_processors() -> None:
    """Where other processes keep half of the processors busy at this moment, let threads of PyTorch sleep while they
    wait for one another, unless the user has chosen how they wait (``OMP_WAIT_POLICY``, ``GOMP_SPINCOUNT``). Call it
    before anything imports torch; the command line does.

    They otherwise spin, which takes the processor from the very thread that they wait for; on an idle machine, where
    sleeping threads take time to wake, spinning is better. Figures are in ``eval/results/busy_encode.md``. It is
    chosen once, for the life of the process, and only GNU's OpenMP, which PyTorch's wheels for Linux bring, can be told
    so.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    if "torch" in sys.modules:
        warnings.warn("share_processors() has no effect any more: torch is loaded; call it first", stacklevel=2)
    elif busy_processors() >= 0.5 * (os.cpu_count() or 1):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def busy_processors() -> int:
    """Other threads of the machine that want a processor all the time: the fewest of five looks within 20 ms; 0 where
    the system does not say."""
    counts = []
    for _ in range(5):
        try:
            lines = _STAT.read_text(encoding="ascii").splitlines()
            counts.append(next(int(line.split()[1]) for line in lines if line.startswith("procs_running")) - 1)
        except (OSError, StopIteration, ValueError):
            return 0
        time.sleep(0.004)
    return min(counts)


@cache
def keep_freed_memory() -> None:
    """Let freed tensors of up to 64 MiB stay with this process, up to 256 MiB of them, instead of going back at once.

    By default glibc returns a large tensor's pages to the system when it is freed, and the system clears those of the
    next one at their first touch: a quarter of the time of encoding long texts in bfloat16, 6 % of a training step.
    Without effect where the C library is another one, and where the user has set ``MALLOC_TRIM_THRESHOLD_``,
    ``MALLOC_MMAP_THRESHOLD_`` or ``GLIBC_TUNABLES``.
    """
    chosen = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if not chosen and platform.libc_ver()[0] == "glibc":
        set_option = ctypes.CDLL(None).mallopt
        set_option(_MMAP_THRESHOLD, _ON_THE_HEAP)
        set_option(_TRIM_THRESHOLD, _KEPT)


def return_freed_memory() -> None:
    """Give freed memory back to the system after work that will not be repeated at once.

    What ``keep_freed_memory`` keeps lies in pieces between what lives on: a process that trained three small models in
    turn held 2.1 GB, and 1.1 GB with this.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
