"""Dropout masks from a fast generator: PyTorch draws them on the CPU one number after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

_STEPS = 2**16  # probabilities are rounded to multiples of 1/65,536; the kept entries are scaled by what is left then


class Masks:
    """Masks of one batch's forward pass, from a seed that PyTorch's generator gives: replaying that replays them."""

    def __init__(self) -> None:
        self._generator: np.random.SFC64 | None = None  # nothing is drawn where nothing is dropped

    def draw(
        self, dropout: nn.Module | None, shape: Sequence[int], dtype: torch.dtype
    ) -> Float[Tensor, "*shape"] | None:
        """Factors 0 or 1 / (1 - p), independent; None where nothing is dropped."""
        steps = round(dropout.p * _STEPS) if isinstance(dropout, nn.Dropout) and dropout.training else 0
        if steps == 0:
            return None
        count = int(np.prod(shape))
        if steps >= _STEPS:
            return torch.zeros(tuple(shape), dtype=dtype)
        if self._generator is None:
            self._generator = np.random.SFC64(int(torch.randint(2**62, ())))
        drawn = self._generator.random_raw(-(-count // 4)).view(np.uint16)[:count]
        factor = np.float32(_STEPS / (_STEPS - steps))
        mask = torch.from_numpy(np.multiply(drawn >= steps, factor, dtype=np.float32))
        return mask.view(tuple(shape)).to(dtype)
