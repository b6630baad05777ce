"""Cross-encoders for re-ranking and for filtering false negatives; the only importer of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import ModelError, first_line, needs_extra


class CrossEncoderScores:
    """Scores of (query, text) pairs by a sentence-transformers cross-encoder."""

    def __init__(self, source: str, model: Any, batch_size: int) -> None:
        self.source = source
        self._model, self._batch_size = model, batch_size

    def __call__(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        """One score a pair."""
        scores = self._model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False)
        return np.asarray(scores, dtype=np.float32)


def load_cross_encoder(name: str | Path, *, batch_size: int = 64) -> CrossEncoderScores:
    """A sentence-transformers cross-encoder by path or id.

    Raises:
        ModelError: there is no such model.
    """
    # six seconds of imports: only where a cross-encoder was asked for
    needs_extra("sentence_transformers", "rerank")
    from sentence_transformers import CrossEncoder

    try:
        model: Any = CrossEncoder(str(name), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: no cross-encoder: {first_line(error)}") from None
    return CrossEncoderScores(str(name), model, batch_size)
