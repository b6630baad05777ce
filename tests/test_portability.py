"""sentemb is imported on systems that lack what only Linux has, and brings nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT_ALL = """
import builtins, importlib, os, pkgutil, sys, warnings

UNIX_ONLY = {"fcntl", "resource", "termios", "tty", "pwd", "grp", "syslog", "curses"}
plain_import = builtins.__import__

def without_unix(name, globals=None, locals=None, fromlist=(), level=0):
    if name.partition(".")[0] in UNIX_ONLY and str((globals or {}).get("__name__")).partition(".")[0] == "sentemb":
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return plain_import(name, globals, locals, fromlist, level)

import torch, transformers  # other libraries know their systems
import haystack, sentence_transformers, langchain_core.runnables.base, langchain_core.vectorstores.base
import llama_index.core, mcp.server.mcpserver

warnings.simplefilter("ignore")  # faiss's SWIG types
builtins.__import__ = without_unix
for name in ("sched_getaffinity", "fork", "getuid", "sysconf", "statvfs", "posix_fallocate"):
    if hasattr(os, name):
        delattr(os, name)
import sentemb

count = 0
for module in pkgutil.walk_packages(sentemb.__path__, "sentemb."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        count += 1
from sentemb.machine.resources import cpu_count, free_memory
assert cpu_count() >= 1
free_memory()
print(count)
"""


def test_every_module_imports_without_unix() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100


FOUNDATION = ["sentemb", "sentemb.errors", "sentemb.files", "sentemb.progress", "sentemb.stopping"]


@pytest.mark.parametrize("module", FOUNDATION)
def test_the_foundation_is_light(module: str) -> None:
    heavy = {"torch", "numpy", "transformers", "rich", "typer"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
