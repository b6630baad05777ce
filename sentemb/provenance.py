"""What ran, when, on which machine and with which versions: the same facts in every file that holds a result."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

PACKAGES = (
    "sentemb", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy", "scipy", "scikit-learn",
    "sentence-transformers", "faiss-cpu", "mteb",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Facts of one run of a program."""

    started: str = ""  # UTC, to the second
    command: tuple[str, ...] = ()
    python: str = ""
    system: str = ""
    processor: str = ""
    capability: str | None = None  # the widest instructions that torch uses, e.g. AVX512; None without torch
    threads: int | None = None
    gpu: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)  # of the packages that are installed


def provenance() -> Provenance:
    """The facts of now. torch is asked if it is loaded already; nothing heavy is imported."""
    torch = sys.modules.get("torch")
    return Provenance(
        started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=tuple(sys.argv),
        python=platform.python_version(),
        system=platform.platform(),
        processor=platform.processor() or platform.machine(),
        capability=torch.backends.cpu.get_cpu_capability() if torch else None,
        threads=torch.get_num_threads() if torch else None,
        gpu=torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        versions=installed_versions(),
    )


def installed_versions() -> dict[str, str]:
    """Version of every package of ``PACKAGES`` that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
