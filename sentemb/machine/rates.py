"""Matrix products on the CPU by whichever of PyTorch's two libraries is faster on this machine, and products of bytes.

PyTorch multiplies float32 matrices with the BLAS that it was built on (MKL in the wheels from PyPI), which takes its
slower paths on processors of another maker; oneDNN, in the same wheels, does not. Which one is faster, and whether
bfloat16 or bytes are faster still, cannot be read off a processor's list of instructions (one that has AVX-512's
bfloat16 multiplies it four times as fast as float32, another at half the rate), so a few small products are timed once
per machine and the result is kept.
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
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.autograd.function import once_differentiable

from sentemb.files import cache_dir, write_json

USUAL_ROWS = 2048  # oneDNN is told a usual number of rows when it lays out weights; any number works afterwards
# activation -> oneDNN's name and algorithm
ONEDNN_ACTIVATIONS: dict[str | None, tuple[str, str]] = {
    None: ("none", ""), "gelu": ("gelu", "none"), "relu": ("relu", ""),
}
_SIZE = 512  # of the matrices that are timed: large enough for full speed, a few milliseconds each
_ROUNDS = 9
_CLEARLY = 1.2  # how much faster something must be to be preferred
_BYTES_CLEARLY = 1.5  # the same for bytes, which inputs must be rounded to first


@dataclass(frozen=True)
class Rates:
    """GFLOP/s of a 512 × 512 × 512 product on one thread."""

    blas_float32: float
    onednn_float32: float  # 0 where this PyTorch does not have it
    bfloat16: float
    int8: float  # unsigned with signed bytes, to bfloat16; 0 where there are no exact ones


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices clearly faster than float32 ones."""
    found = rates()
    return found.bfloat16 > _CLEARLY * max(found.blas_float32, found.onednn_float32)


def has_fast_int8() -> bool:
    """Whether this CPU multiplies matrices of bytes clearly faster than everything else."""
    found = rates()
    return found.int8 > _BYTES_CLEARLY * max(found.blas_float32, found.onednn_float32, found.bfloat16)


def is_onednn_faster() -> bool:
    """Whether oneDNN multiplies float32 matrices clearly faster than the BLAS here."""
    found = rates()
    return found.onednn_float32 > _CLEARLY * found.blas_float32


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


# ---------------------------------------------------------------------------------------------------- bytes
class ByteLinear:
    """``W x + b`` for a weight and input of bytes, each a whole number times a scale.

    Args:
        weight: whole numbers.
        weight_scale: of every output's weights.
        bias: b.
        scale: of the input.
        zero: the input's byte for 0.
    """

    def __init__(
        self, weight: Int8[Tensor, "o i"], weight_scale: Float[Tensor, " o"], bias: Float[Tensor, " o"], *,
        scale: float = 1.0, zero: int = 128,
    ) -> None:
        self._weight = torch.ops.onednn.qlinear_prepack(weight.contiguous(), [USUAL_ROWS, weight.shape[1]])
        self._weight_scale, self._bias = weight_scale.float(), bias.float()
        self._weight_zero = torch.zeros(len(weight), dtype=torch.int64)
        self._scale, self._zero = scale, zero

    def __call__(
        self, x: UInt8[Tensor, "tokens i"], dtype: torch.dtype, activation: str | None = None, *,
        scale: float = 1.0, zero: int = 0,
    ) -> Tensor:
        """(tokens, o) in ``dtype``; ``scale`` and ``zero`` are those of the result where it is of bytes."""
        name, algorithm = ONEDNN_ACTIVATIONS[activation]
        found: Tensor = torch.ops.onednn.qlinear_pointwise(
            x, self._scale, self._zero, self._weight, self._weight_scale, self._weight_zero, self._bias,
            scale, zero, dtype, name, [], algorithm)
        return found

    def plus(self, x: UInt8[Tensor, "tokens i"], residual: Float[Tensor, "tokens o"]) -> Float[Tensor, "tokens o"]:
        """``residual + W x + b``, in the residual's place."""
        found: Tensor = torch.ops.onednn.qlinear_pointwise.binary(
            x, self._scale, self._zero, self._weight, self._weight_scale, self._weight_zero, residual, self._bias,
            1.0, 0, residual.dtype, 1.0, 0, "sum", 1.0, "none", [], "")
        return found


@cache
def has_int8() -> bool:
    """Whether oneDNN multiplies bytes here, exactly: older processors add pairs of products in 16 bits, which
    overflow (tried once)."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        x, ones = torch.full((2, 64), 255, dtype=torch.uint8), torch.ones(16)
        tried = ByteLinear(torch.full((16, 64), 127, dtype=torch.int8), ones, ones, zero=0)
        found = tried.plus(x, tried(x, torch.float32, "gelu"))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((found == 2 * (64 * 255 * 127 + 1)).all())


# --------------------------------------------------------------------------------------------------- timing
@cache
def rates() -> Rates:
    """What this machine's products were timed at, the first time anybody asked."""
    path = _kept_at()
    try:
        return Rates(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        found = _measured()
    with suppress(OSError):  # a cache folder that cannot be written is no fault
        write_json(path, asdict(found))
    return found


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
    told = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    return "\n".join(line for line in described if line.split("\t")[0].strip(" :") in told)


def _measured() -> Rates:
    left, right = torch.ones(_SIZE, _SIZE), torch.ones(_SIZE, _SIZE)
    half = left.bfloat16(), right.bfloat16()
    works: dict[str, Callable[[], Tensor]] = {
        "blas_float32": lambda: F.linear(left, right), "onednn_float32": lambda: _onednn(left, right),
        "bfloat16": lambda: F.linear(*half),
    }
    best = dict.fromkeys(("int8", *works), float("inf"))
    if has_int8():
        rounded, map_ = left.to(torch.uint8), ByteLinear(right.to(torch.int8), left[0], left[0], zero=0)
        works["int8"] = lambda: map_(rounded, torch.bfloat16)
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
