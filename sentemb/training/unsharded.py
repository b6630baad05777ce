"""The trained encoder with all its weights, for evaluating and saving it on the first device."""

from __future__ import annotations

import copy

from sentemb.distributed import rank
from sentemb.encoder import Encoder
from sentemb.training.device import unsharded


class UnshardedEncoder:
    """The trained encoder itself, or a copy that ``read`` fills where the encoder's weights will be sharded.

    It must be made before the weights are sharded. Only the first device holds a copy.
    """

    def __init__(self, encoder: Encoder, *, is_sharded: bool) -> None:
        self.encoder, self.is_sharded = encoder, is_sharded
        self._copy = copy.deepcopy(encoder) if is_sharded and rank() == 0 else None

    def read(self) -> Encoder:
        """The encoder with its present weights; every device must call it, and only the first may use the result."""
        if not self.is_sharded:
            return self.encoder
        state = {key: unsharded(value) for key, value in self.encoder.module.state_dict().items()}
        if self._copy is not None:
            self._copy.module.load_state_dict(state)
        return self._copy or self.encoder
