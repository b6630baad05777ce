"""What companions may call while they prepare: encoding, nearest neighbours, decoding."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sentemb.encoder import Encoder
from sentemb.errors import RecipeError
from sentemb.maths.neighbours import nearest
from sentemb.types import SentenceModule, Services, TokenColumn

if TYPE_CHECKING:
    from sentemb.training.plan import Plan


class EncoderShelf:
    """Encoders by the module that parts hold: the trained one and the frozen ones that companions load."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._by_module: dict[int, Encoder] = {id(encoder.module): encoder}
        self._by_source: dict[str, Encoder] = {}

    def load(self, source: str) -> SentenceModule:
        """A frozen encoder whose tokenizer is the trained one's.

        Raises:
            RecipeError: the tokenizers differ, so token ids cannot be shared.
        """
        if source not in self._by_source:
            loaded = Encoder.load(source)
            if loaded.tokeniser.fingerprint() != self.encoder.tokeniser.fingerprint():
                raise RecipeError(
                    f"{source}: its tokenizer differs from the trained encoder's, but both read the same token ids; "
                    "choose a checkpoint of the same family"
                )
            loaded.module.requires_grad_(False).eval()
            self._by_source[source] = loaded
            self._by_module[id(loaded.module)] = loaded
        module: SentenceModule = self._by_source[source].module
        return module

    def embed(self, module: SentenceModule, column: TokenColumn) -> NDArray[np.float32]:
        """Unit embeddings (rows, d) of a token column."""
        encoder = self._by_module.get(id(module))
        if encoder is None:
            raise AssertionError("only modules that load() gave, or the trained one, can embed")
        was_training = encoder.module.training
        encoder.module.eval()
        try:
            with torch.no_grad():
                vectors: NDArray[np.float32] = encoder.encode(column, normalise=True, precision="auto")
            return vectors
        finally:
            encoder.module.train(was_training)


def build_services(plan: Plan, device: torch.device) -> Services:
    """The services of one run."""
    return Services(
        embed=plan.shelf.embed,
        nearest=nearest,
        decode=plan.encoder.tokeniser.decode,
        say=_say,
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
