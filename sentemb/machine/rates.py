"""The machine's measured rates, and matrix products on the CPU by whichever of PyTorch's two libraries is faster.

PyTorch multiplies float32 matrices with the BLAS that it was built on (MKL in the wheels from PyPI), which takes its
slower paths on processors of another maker; oneDNN, in the same wheels, does not. No list of instructions says which is
faster, and whether bfloat16 is faster still, so a few products are timed once per machine.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
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
    return bfloat16_slowness() * _CLEARLY < 1


def bfloat16_slowness() -> float:
    """How many times as long as a product of float32 matrices one of bfloat16 takes on this CPU."""
    float32, bfloat16 = max(rates().blas_float32, rates().onednn_float32), rates().bfloat16
    return float32 / bfloat16 if bfloat16 else float("inf")  # it could not be timed


def is_onednn_faster() -> bool:
    """Whether oneDNN multiplies float32 matrices clearly faster than the BLAS here."""
    return rates().onednn_float32 > _CLEARLY * rates().blas_float32


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
        has_weight = ctx.needs_input_grad[1]
        of_weight = _onednn(gradient.t(), x.reshape(-1, x.shape[-1]).t()) if has_weight else None
        return of_x, of_weight, gradient.sum(0) if ctx.has_bias else None


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


@cache
def rates() -> Rates:
    """What this machine's products were timed at, the first time anybody asked; kept in the user's cache folder."""
    cpuinfo, known = Path("/proc/cpuinfo"), ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
    described = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0] if cpuinfo.exists() else platform.processor()
    processor = [line for line in described.splitlines() if line.startswith(known)] or [described, platform.machine()]
    facts = [processor, torch.__version__, torch.backends.cpu.get_cpu_capability()]
    path = cache_dir() / "machine" / f"{sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"
    try:
        return Rates(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        measured = _measured()
    with suppress(OSError):  # a cache folder that cannot be written is no fault
        write_json(path, asdict(measured))
    return measured


def _measured() -> Rates:
    left, right = torch.ones(_SIZE, _SIZE), torch.ones(_SIZE, _SIZE)
    works: dict[str, Callable[[], Tensor]] = {
        "blas_float32": partial(F.linear, left, right), "onednn_float32": partial(_onednn, left, right),
        "bfloat16": partial(F.linear, left.bfloat16(), right.bfloat16()),
    }
    best = dict.fromkeys(works, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for one another where other programs run, and ratios are the same
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for name, work in [*works.items()] * _ROUNDS:  # in turns, so that what disturbs the machine disturbs all
                with suppress(RuntimeError, AttributeError, NotImplementedError):  # an infinite time
                    start = time.perf_counter()
                    work()
                    best[name] = min(best[name], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return Rates(**{name: 2 * _SIZE**3 / seconds / 1e9 for name, seconds in best.items()})
