"""A model as evaluation sees it: every distinct text is encoded once a prompt, what comes back is checked and counted,
and the model's named prompts are put in front of the texts that they are for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sentemb.errors import EvaluationError, NumericError, SentembError
from sentemb.types import Similarity, Vectors

MEMORY_BYTES = 2 * 2**30
_ROLES = {"query": ("query",), "document": ("document", "passage")}  # what many models call passage is a document


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What a results file keeps of the model that was scored."""

    name: str
    source: str = ""
    revision: str | None = None  # commit of a hub repository
    digest: str | None = None  # SHA-256 over what decides an embedding
    backend: str = "callable"
    precision: str | None = None
    max_tokens: int | None = None
    width: int | None = None
    similarity: Similarity = "cosine"


class EvalModel:
    """What ``open_model`` makes of anything that can be evaluated.

    Sides of pairs and whole tasks share many of their texts (STS-B is drawn from STS12 to STS17), so vectors are
    remembered; beyond ``MEMORY_BYTES`` the memory starts afresh.

    Args:
        identity: what a results file keeps of it.
        function: (texts, prompt or None) → (texts, d).
        prompts: its named prompts.
        cut_count: how many texts it has cut so far, where it tells.
    """

    def __init__(
        self,
        identity: ModelIdentity,
        function: Callable[[list[str], str | None], Any],
        prompts: Mapping[str, str] | None = None,
        cut_count: Callable[[], int] = lambda: 0,
    ) -> None:
        self.cut_count = cut_count
        self.identity, self.function, self.prompts = identity, function, dict(prompts or {})
        self.texts = 0  # encoded so far, without those that were remembered
        self.seconds = 0.0  # spent encoding
        self.forget()

    def forget(self) -> None:
        """Remember no vectors."""
        self._vectors: dict[tuple[str | None, str], Vectors] = {}
        self._bytes = 0

    def encode(self, texts: Sequence[str], *, prompt: str | None = None) -> Vectors:
        """Vectors (texts, d), finite; every distinct text is encoded once.

        Raises:
            NumericError: NaN or infinite values.
            EvaluationError: a wrong shape, or another width than before.
        """
        unknown = [text for text in dict.fromkeys(texts) if (prompt, text) not in self._vectors]
        fresh = self._encode_new(unknown, prompt) if unknown else np.zeros((0, self.identity.width or 0), np.float32)
        is_too_much = self._bytes + fresh.nbytes > MEMORY_BYTES
        if not len(texts) or (is_too_much and unknown == list(texts)):
            return fresh  # a corpus larger than the memory: not even its rows are looked at
        new = {(prompt, text): row for text, row in zip(unknown, fresh, strict=True)}
        rows = np.stack([new[key] if (key := (prompt, text)) in new else self._vectors[key] for text in texts])
        if is_too_much:
            self.forget()
        else:
            self._vectors.update(new)
            self._bytes += fresh.nbytes
        return rows

    def prompt(self, *, task: str = "", task_type: str = "", role: str | None = None) -> str | None:
        """The prompt for a task's texts; None where no name fits (the model's own default then applies).

        Priority, as MTEB documents it: ``<task>-<role>``, ``<task>``, ``<type>-<role>``, ``<type>``, ``<role>``.
        """
        roles = _ROLES.get(role, (role,)) if role else ()
        names = [*(f"{task}-{one}" for one in roles), task, *(f"{task_type}-{one}" for one in roles), task_type, *roles]
        return next((self.prompts[name] for name in names if name and name in self.prompts), None)

    def _encode_new(self, rows: list[str], prompt: str | None) -> Vectors:
        start = time.perf_counter()
        name = self.identity.name
        try:
            returned = self.function(rows, prompt)
        except SentembError:
            raise
        except Exception as error:  # whatever a user's own function raises: say whose it is
            raise EvaluationError(f"{name} failed on {len(rows):,} texts: {type(error).__name__}: {error}") from error
        vectors = checked_vectors(returned, rows, source=name, width=self.identity.width)
        self.seconds += time.perf_counter() - start
        self.texts += len(rows)
        if self.identity.width is None:  # learnt from the first vectors
            self.identity = replace(self.identity, width=int(vectors.shape[1]))
        return vectors


def checked_vectors(vectors: object, texts: Sequence[str], *, source: str, width: int | None) -> Vectors:
    """What an encoder returned, as finite float32 (texts, d); otherwise an error that says what is wrong with it."""
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{source} returned no (texts, width) array of numbers: {error}") from None
    if array.ndim != 2 or array.shape[0] != len(texts) or array.shape[1] == 0:
        raise EvaluationError(
            f"{source} returned an array of shape {array.shape} for {len(texts):,} texts; needed is one vector a text, "
            f"({len(texts):,}, width)"
        )
    if width is not None and array.shape[1] != width:
        raise EvaluationError(f"{source} returned vectors of width {array.shape[1]}; its width is {width}")
    # one pass over the sums finds any NaN or infinity without a boolean copy of the whole matrix
    if not np.isfinite(array.sum(axis=1, dtype=np.float64)).all():
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        raise NumericError(
            f"{source} returned NaN or infinite values for {len(bad):,} of {len(texts):,} texts; the first is text "
            f"{bad[0]}: {texts[bad[0]][:60]!r}"
        )
    return array
