"""Processes that train together: gathering rows with gradients, averaging gradients, joining and leaving.

No other module of sentemb calls collectives. A device is one process of a run. The gather's backward is its adjoint:
the gradients of all W devices are summed, and each keeps the part of its own rows. Each device computes the whole
batch's loss L, so the sum is W · ∂L/∂row; DDP and FSDP average over devices, which divides by W.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from itertools import accumulate, groupby
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from sentemb.errors import DeviceLost, first_line

_BUCKET_VALUES = 8 * 2**20  # gradients averaged in one call


def devices() -> int:
    """Number of devices (processes) that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's place among the devices."""
    return dist.get_rank() if dist.is_initialized() else 0


def say(line: str, *, level: int = logging.INFO) -> None:
    """Log a line for the user, once for all devices."""
    if rank() == 0:
        logging.getLogger(__name__).log(level, line)


def split_sizes(rows: int, parts: int) -> tuple[int, ...]:
    """How a batch of ``rows`` is dealt to ``parts`` devices: contiguous, sizes differing by at most one."""
    small, larger = divmod(rows, parts)
    return tuple(small + (index < larger) for index in range(parts))


def gather_rows(local: Float[Tensor, "b ..."], sizes: Sequence[int]) -> Float[Tensor, "n ..."]:
    """All devices' rows in rank order, with gradients to every device's rows; ``sizes`` are those of all devices."""
    if devices() == 1:
        return local
    result: Tensor = _Gather.apply(local, sizes)
    return result


def gather_detached(local: Shaped[Tensor, "b ..."], sizes: Sequence[int]) -> Shaped[Tensor, "n ..."]:
    """As ``gather_rows``, without gradients; for any dtype."""
    return local.detach() if devices() == 1 else _all_gather(local.detach(), sizes)


def sum_over_devices(value: Tensor) -> Tensor:
    """The sum of a tensor over devices, without gradients."""
    value = value.detach().clone()
    if devices() > 1:
        dist.all_reduce(value)
    return value


def any_device(flag: bool) -> bool:
    """Whether the flag is set on any device (so that all of them act alike)."""
    if devices() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return bool(sum_over_devices(torch.tensor(float(flag), device=device)) > 0)


def broadcast_object(value: Any) -> Any:
    """The first device's value on every device."""
    if devices() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_objects(value: Any) -> list[Any]:
    """Every device's value, in rank order."""
    if devices() == 1:
        return [value]
    values: list[Any] = [None] * devices()
    dist.all_gather_object(values, value)
    return values


def _all_gather(local: Tensor, sizes: Sequence[int]) -> Tensor:
    assert sizes[rank()] == local.shape[0], f"rank {rank()} holds {local.shape[0]} rows, but the sizes are {sizes}"
    padded = local.new_zeros((max(sizes), *local.shape[1:]))
    padded[: local.shape[0]] = local
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, sizes: Sequence[int]) -> Tensor:
        ctx.start = sum(sizes[: rank()])
        ctx.rows = local.shape[0]
        return _all_gather(local, sizes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.start : ctx.start + ctx.rows], None


# ------------------------------------------------------------------------------------ joining and losing devices
def join(timeout_s: float) -> bool:
    """Join the other processes that torchrun started, if it started any; whether this call did so.

    Raises: DeviceLost where the others did not come within ``timeout_s``. A collective that is not answered within it
        raises later (see ``is_lost``).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return False
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    timeout = timedelta(seconds=timeout_s)
    try:
        store, rank, world = next(rendezvous("env://", timeout=timeout))
        store = PrefixStore(_agree(store, rank, world, timeout_s), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    except (dist.DistError, RuntimeError) as error:
        raise DeviceLost(
            f"the {os.environ['WORLD_SIZE']} processes of this run did not find each other within {timeout_s:g} "
            f"seconds (train.device_timeout_s): {first_line(error)}"
        ) from error
    return True


def _agree(store: Store, rank: int, world: int, timeout_s: float) -> str:
    """A prefix of the store that all processes of this start share, and none of an earlier start.

    torchrun keeps one store over its restarts, with addresses of processes that ended. So each process publishes a
    fresh random name, then a digest of the names that it can read: when all digests agree, all are of the same start.
    """
    store.set(f"sentemb/name/{rank}", uuid.uuid4().hex)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        names = store.multi_get([f"sentemb/name/{index}" for index in range(world)])
        seen = hashlib.sha256(b"".join(names)).hexdigest()
        store.set(f"sentemb/seen/{rank}", seen)
        digests = store.multi_get([f"sentemb/seen/{index}" for index in range(world)])
        if all(digest == seen.encode() for digest in digests):
            return f"sentemb/start/{seen}"
        time.sleep(0.05)
    raise dist.DistNetworkError("not all wrote to the rendezvous store")


def leave() -> None:
    """Leave the other processes, after the last collective."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another device ended or does not answer."""
    # gloo raises plain RuntimeErrors
    signs = ("connection closed by peer", "connection reset by peer", "broken pipe", "timed out", "gloo")
    is_from_gloo = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)
    return devices() > 1 and (is_from_gloo or isinstance(error, dist.DistError))


# ------------------------------------------------------------------------------------------------- gradients
def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace gradients that neither DDP nor FSDP looks after by their mean over devices; a missing one is zero."""
    if devices() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    ends = accumulate(gradient.numel() for gradient in gradients)
    for _, entries in groupby(zip(ends, gradients, strict=True), key=lambda entry: entry[0] // _BUCKET_VALUES):
        bucket = [gradient for _, gradient in entries]
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        flat /= devices()
        for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def with_zero_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """``loss``, with a zero gradient to every parameter: DDP waits for one, also where the loss does not use it."""
    result: Tensor = _WithZeroGradients.apply(loss, *parameters)
    return result


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.likes = [(parameter.shape, parameter.dtype, parameter.device) for parameter in parameters]
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        zeros = [torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.likes]
        return (gradients[0], *zeros)
