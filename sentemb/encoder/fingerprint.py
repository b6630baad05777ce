"""Which weights a frozen model has, in 32 bytes, so that a checkpoint need not hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from sentemb.errors import CheckpointError


def fingerprint(module: nn.Module) -> UInt8[Tensor, " 32"]:
    """SHA-256 over the names, types, shapes and bytes of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        # bfloat16 has no numpy type; its bytes do
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()))
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def require_same(state: Mapping[str, Tensor], mine: UInt8[Tensor, " 32"], part: str) -> None:
    """Compare a checkpoint's fingerprint with the loaded model's.

    Raises:
        CheckpointError: they differ, or the checkpoint has none.
    """
    theirs = state.get("fingerprint")
    if theirs is None or not torch.equal(theirs.cpu(), mine.cpu()):
        found = "no fingerprint" if theirs is None else bytes(theirs.cpu().tolist()).hex()[:12]
        raise CheckpointError(
            f"{part}: the checkpoint was made with another frozen model (found {found}, loaded "
            f"{bytes(mine.cpu().tolist()).hex()[:12]}); give the same model again, or start a new run"
        )
