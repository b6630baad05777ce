"""A ``SentenceTransformer`` that encodes with sentemb, for libraries that take nothing else: BERTopic, KeyBERT, SetFit.

>>> BERTopic(embedding_model=SentembTransformer("runs/mine/model"))
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentemb.encoder import Encoder
from sentemb.encoder.runners.choose import weights_state
from sentemb.encoder.source import locate
from sentemb.errors import needs_extra

needs_extra("sentence_transformers", "rerank")

from sentence_transformers import SentenceTransformer  # noqa: E402 - behind the message of its absence

_log = logging.getLogger("sentemb")


class SentembTransformer(SentenceTransformer):
    """A model with all that sentence-transformers' class has, whose ``encode`` is sentemb's.

    ``encode`` takes sentence-transformers' arguments. What sentemb does not do (token embeddings, quantised outputs,
    several processes, other lengths) and a model whose weights were changed or moved since are left to
    sentence-transformers, so that training it, as SetFit does, is safe. The weights are in memory twice.

    Args:
        model: what ``Encoder.load`` takes: a folder, a hub id, ``package:NAME/FOLDER``.
        precision: of encoding, as in ``Encoder.load``.
        device: the GPU where there is one, else the CPU.

    Deviations: ``batch_size`` is taken and not used: sentemb fills batches by tokens.
    """

    def __init__(self, model: str | Path, *, precision: str = "auto", device: str | None = None) -> None:
        encoder = Encoder.load(model, precision=precision, device=device)
        super().__init__(str(locate(model)), device=str(encoder.device))
        self._sentemb, self._has_warned = encoder, False
        self._weights = weights_state(self)
        self._length = self.get_max_seq_length()

    def encode(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, batch_size: int = 32,
        show_progress_bar: bool | None = None, output_value: str | None = "sentence_embedding",
        precision: str = "float32", convert_to_numpy: bool = True, convert_to_tensor: bool = False,
        device: Any = None, normalize_embeddings: bool = False, **others: Any,
    ) -> Any:
        """Vectors of texts, one vector for one text; see sentence-transformers' ``encode``."""
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        known = self.prompts.get(prompt_name) if prompt is None and prompt_name is not None else prompt
        special = {name for name, value in others.items() if value is not None} - {"task"}
        is_ours = (
            output_value == "sentence_embedding" and precision == "float32" and device in (None, str(self.device))
            and not special and all(isinstance(text, str) for text in texts)
            and (known is not None or prompt_name is None)
        )
        if not is_ours or not self._is_unchanged():
            return super().encode(
                inputs, prompt_name=prompt_name, prompt=prompt, batch_size=batch_size,
                show_progress_bar=show_progress_bar, output_value=output_value, precision=precision,
                convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor, device=device,
                normalize_embeddings=normalize_embeddings, **others,
            )
        vectors = self._sentemb.encode(
            texts, prompt=known, normalise=True if normalize_embeddings else None,
            progress=bool(show_progress_bar),
        )
        return _in_type(vectors, is_tensor=convert_to_tensor, is_array=convert_to_numpy, device=self.device,
                         is_one=isinstance(inputs, str))

    def _is_unchanged(self) -> bool:
        is_unchanged = weights_state(self) == self._weights and self.get_max_seq_length() == self._length
        if not is_unchanged and not self._has_warned:
            self._has_warned = True
            _log.warning("weights or length of the model changed: sentence-transformers encodes from here on; save "
                         "the model and open it again to encode with sentemb")
        return is_unchanged


def _in_type(
    vectors: np.ndarray[Any, Any], *, is_tensor: bool, is_array: bool, device: torch.device, is_one: bool
) -> np.ndarray[Any, Any] | torch.Tensor | Sequence[torch.Tensor]:
    """In the type that the arguments of sentence-transformers ask for."""
    if is_tensor or not is_array:
        tensor = torch.from_numpy(vectors).to(device)
        return tensor[0] if is_one else tensor if is_tensor else list(tensor)
    return vectors[0] if is_one else vectors
