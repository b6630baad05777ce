"""The trained encoder in one piece, for evaluating and saving it on the first device."""

from __future__ import annotations

import copy

from sentemb.distributed import rank
from sentemb.encoder import Encoder
from sentemb.training.device import whole


class WholeEncoder:
    """The encoder itself, or, where its weights will be sharded, a copy that ``read`` fills.

    Made before sharding. The first device then holds the weights once more; the others hold no copy.
    """

    def __init__(self, encoder: Encoder, *, is_sharded: bool) -> None:
        self.encoder, self.is_sharded = encoder, is_sharded
        self._copy = copy.deepcopy(encoder) if is_sharded and rank() == 0 else None

    def read(self) -> Encoder:
        """The encoder with its present weights; every device must call it, and only the first may use the result."""
        if not self.is_sharded:
            return self.encoder
        state = {key: whole(value) for key, value in self.encoder.module.state_dict().items()}
        if self._copy is not None:
            self._copy.module.load_state_dict(state)
            self._copy.refresh()
        return self._copy or self.encoder
