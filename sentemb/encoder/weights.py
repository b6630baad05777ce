"""Noticing that weights changed, so that what was derived from them is made anew."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

_optimizer_steps = 0
_is_counting = False


def weights_state(module: nn.Module) -> int:
    """A number that changes whenever a weight is replaced, written in place or stepped by an optimizer.

    Writes through ``parameter.data`` are not seen.
    """
    _count_optimizer_steps()
    tensors = [*module.parameters(), *module.buffers()]
    # an inference tensor has no version and cannot be written in place outside inference mode
    versions = tuple((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors)
    return hash((_optimizer_steps, versions))


def _count_optimizer_steps() -> None:
    # fused optimizers write weights without raising autograd's version counter, so their steps are counted;
    # nothing was derived before the first call, so it is early enough to start here
    global _is_counting
    if not _is_counting:
        _is_counting = True
        register_optimizer_step_post_hook(_after_step)


def _after_step(*_: Any) -> None:
    global _optimizer_steps
    _optimizer_steps += 1
