"""Cross-encoders for re-ranking and for filtering false negatives; the only importer of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import ModelError, first_line, needs_extra


def load_cross_encoder(name: str | Path) -> Callable[[list[tuple[str, str]]], NDArray[np.float32]]:
    """Scores of (query, text) pairs by a sentence-transformers cross-encoder, given by path or id.

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

    def score(pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        return np.asarray(model.predict(pairs, batch_size=64, show_progress_bar=False), dtype=np.float32)

    return score
