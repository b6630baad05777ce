"""What companions with an encoder that never learns have in common."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from sentemb.companions.companion import Companion
from sentemb.encoder.digest import fingerprint, require_same
from sentemb.types import Build, SentenceModule


class FrozenEncoder(Companion):
    """Base of companions that look at the data with a second encoder, always in evaluation mode.

    A checkpoint holds only which model it is: what was made with it is made again.

    Args:
        model: path, ``package:…`` or hub id of the encoder, whose tokenizer must be that of the trained one; without
            it, the checkpoint from which the training starts.
    """

    model_bytes = 4

    def __init__(self, *, model: str | None = None) -> None:
        super().__init__()
        self.model = model
        self._encoder: nn.Module | None = None
        self._fingerprint: Tensor | None = None

    def bind(self, build: Build) -> None:
        """Load the encoder."""
        encoder = build.load_encoder(self.model or build.backbone)
        assert isinstance(encoder, nn.Module)
        self._encoder = encoder.eval().requires_grad_(False)
        self._fingerprint = fingerprint(encoder)

    @property
    def encoder(self) -> SentenceModule:
        """The frozen encoder."""
        assert self._encoder is not None, "bind() comes first"
        return self._encoder  # type: ignore[return-value]

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in evaluation mode: a frozen encoder has no dropout."""
        return super().train(False)

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Which model it is."""
        assert self._fingerprint is not None
        return {"fingerprint": self._fingerprint}

    def load_checkpoint_state(self, state: Mapping[str, Tensor]) -> None:
        """Check that the same model was loaded again.

        Raises:
            CheckpointError: another one was.
        """
        assert self._fingerprint is not None
        require_same(state, self._fingerprint, f"companion {self.name}")
