"""The machine's measured rates, and matrix products on the CPU by whichever of PyTorch's two libraries is faster.

PyTorch multiplies float32 matrices with the BLAS that it was built on (MKL in the wheels from PyPI), which takes its
slower paths on processors of another maker; oneDNN, in the same wheels, does not. Which one is faster, and whether
bfloat16 is faster still, cannot be read off a processor's list of instructions (one that has AVX-512's bfloat16
multiplies it four times as fast as float32, another at half the rate), so a few small products are timed once per
machine and the result is kept in the user's cache folder.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from sentemb.files import cache_dir, write_json

_SIZE = 512  # of the matrices that are timed: large enough for full speed, a few milliseconds each
_ROUNDS = 9
_CLEARLY = 1.2  # how much faster something must be to be preferred


@dataclass(frozen=True, kw_only=True)
class Rates:
    """GFLOP/s of a 512 × 512 × 512 product on one thread."""

    blas_float32: float
    onednn_float32: float  # 0 where this PyTorch does not have it
    bfloat16: float


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices clearly faster than float32 ones."""
    measured = rates()
    return measured.bfloat16 > _CLEARLY * max(measured.blas_float32, measured.onednn_float32)


def is_onednn_faster() -> bool:
    """Whether oneDNN multiplies float32 matrices clearly faster than the BLAS here."""
    measured = rates()
    return measured.onednn_float32 > _CLEARLY * measured.blas_float32


def linear(
    x: Float[Tensor, "*rows i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "*rows o"]:
    """``F.linear``, by the faster library; differentiable once."""
    is_plain = x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu"
    if is_plain or x.numel() == 0 or torch.is_autocast_enabled("cpu") or not is_onednn_faster():
        return F.linear(x, weight, bias)
    result: Tensor = _Linear.apply(x, weight, bias)
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _onednn(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        of_x = _onednn(gradient, weight.t()).view(x.shape) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = _onednn(gradient.t(), x.reshape(-1, x.shape[-1]).t())
        return of_x, of_weight, gradient.sum(0) if ctx.has_bias else None


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


# --------------------------------------------------------------------------------------------------- timing
@cache
def rates() -> Rates:
    """What this machine's products were timed at, the first time anybody asked."""
    path = _kept_at()
    try:
        return Rates(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        measured = _measured()
    with suppress(OSError):  # a cache folder that cannot be written is no fault
        write_json(path, asdict(measured))
    return measured


def _kept_at() -> Path:
    facts = [processor(), torch.__version__, torch.backends.cpu.get_cpu_capability()]
    return cache_dir() / "machine" / f"{sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"


@cache
def processor() -> str:
    """The processor's name, model and instructions."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.processor()} {platform.machine()}"
    facts = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    return "\n".join(line for line in described if line.split("\t")[0].strip(" :") in facts)


def _measured() -> Rates:
    left, right = torch.ones(_SIZE, _SIZE), torch.ones(_SIZE, _SIZE)
    half = left.bfloat16(), right.bfloat16()
    works: dict[str, Callable[[], Tensor]] = {
        "blas_float32": lambda: F.linear(left, right), "onednn_float32": lambda: _onednn(left, right),
        "bfloat16": lambda: F.linear(*half),
    }
    best = dict.fromkeys(works, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for one another where other programs run, and ratios are the same
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for _ in range(_ROUNDS):  # in turns, so that what disturbs the machine disturbs all
                for name, work in works.items():
                    start = time.perf_counter()
                    try:
                        work()
                    except (RuntimeError, AttributeError, NotImplementedError):
                        continue  # an infinite time
                    best[name] = min(best[name], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return Rates(**{name: 2 * _SIZE**3 / seconds / 1e9 for name, seconds in best.items()})
