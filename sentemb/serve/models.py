"""A model whose texts come from many clients, and how much of them a server takes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from sentemb.data.templates import Template
from sentemb.encoder import Encoder
from sentemb.serve.batching import Batcher
from sentemb.serve.wire import Refusal
from sentemb.types import UNKNOWN, TokenColumn, Vectors

Item = tuple[str | None, Any]  # a prompt and its text, or None and token ids


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes on; more is refused with 413 or 429.

    Args:
        body_mib: of a request.
        body_s: seconds for a request's body to arrive.
        inputs: texts of a request.
        results: of a search.
        waiting_tokens: of a model's requests that wait.
        searches: at a time, the waiting ones included.
    """

    body_mib: float = 16.0
    body_s: float = 30.0
    inputs: int = 2048
    results: int = 1000
    waiting_tokens: int = 500_000
    searches: int = 256


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Vectors with what they took."""

    vectors: Vectors
    tokens: int
    cut: int  # texts that were longer than the model reads


class ServedModel:
    """An encoder whose calls from all clients are made together."""

    def __init__(self, encoder: Encoder, limits: Limits) -> None:
        self.encoder = encoder
        self.batcher = Batcher(self._encode, waiting_cost=limits.waiting_tokens)
        self._counting = encoder.tokeniser.cut_to(encoder.max_tokens)  # a counter of cut texts of its own
        self._lock = threading.Lock()

    async def embed(
        self, inputs: Sequence[str] | Sequence[list[int]], *, prompt_name: str | None = None,
        dimensions: int | None = None, truncate: bool = False,
    ) -> Embedded:
        """Vectors of texts or token ids.

        Raises: Refusal, Overloaded.
        """
        encoder = self.encoder
        if dimensions is not None and dimensions > encoder.width:
            raise Refusal(400, f"dimensions = {dimensions}; this model has {encoder.width}", param="dimensions")
        if prompt_name is not None and prompt_name not in encoder.prompts:
            known = ", ".join(encoder.prompts) or "none"
            raise Refusal(400, f'prompt_name "{prompt_name}" is not known; known: {known}', param="prompt_name")
        name = prompt_name or encoder.default_prompt
        prompt = encoder.prompts[name] if name else ""
        if isinstance(inputs[0], str):
            items, lengths, cut = await run_in_threadpool(self.prepared, inputs, prompt)  # type: ignore[arg-type]
            if cut and not truncate:
                raise Refusal(
                    400, f"{cut} of {len(inputs)} texts are longer than the {encoder.max_tokens} tokens that the model "
                    'reads; shorten them, or send "truncate": true to have their ends left out', param="input",
                )
        else:
            self._check(inputs)  # type: ignore[arg-type]
            items, lengths, cut = [(None, np.array(row, dtype=np.int32)) for row in inputs], [*map(len, inputs)], 0
        vectors = np.stack(await self.batcher(items, lengths))
        if dimensions is not None:
            vectors = vectors[:, :dimensions]
            if encoder.is_normalised:
                vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Embedded(vectors=vectors, tokens=sum(lengths), cut=cut)

    def prepared(self, texts: Sequence[str], prompt: str) -> tuple[list[Item], list[int], int]:
        """What the batcher takes for texts, their tokens in the prompt, and how many texts were cut.

        Tokens are encoded as they are; texts in a prompt go through ``encode``, which knows what a prompt means for
        the pooling.
        """
        with self._lock:
            before = self._counting.cut_count
            column = self._counting(texts, Template.read(prompt) if prompt else None)
            cut = self._counting.cut_count - before
        items: list[Item] = [(prompt, text) for text in texts] if prompt else [(None, row) for row in _rows(column)]
        return items, column.lengths.tolist(), cut

    def _check(self, rows: Sequence[list[int]]) -> None:
        size, longest = self.encoder.vocabulary.size, self.encoder.max_tokens
        for place, row in enumerate(rows):
            if len(row) > longest:
                raise Refusal(400, f"input {place} has {len(row):,} token ids; this model reads {longest:,}",
                              param="input")
            if min(row) < 0 or max(row) >= size:
                raise Refusal(400, f"input {place} has a token id outside 0 … {size - 1}: ids are those of this "
                              "model's own tokenizer; send texts instead", param="input")

    def _encode(self, items: list[Item]) -> list[Vectors]:
        """In the batcher's thread: one call for every run of items of one prompt."""
        vectors: list[Vectors] = []
        for prompt, run in groupby(items, key=lambda item: item[0]):
            entries = [entry for _, entry in run]
            if prompt is None:
                vectors.extend(self.encoder.encode(_column(entries)))
            else:
                vectors.extend(self.encoder.encode(entries, prompt=prompt, progress=False))
        return vectors


class FromThreads:
    """A served model as the embedder of an index, whose searches run in threads."""

    def __init__(self, model: ServedModel, loop: asyncio.AbstractEventLoop) -> None:
        self._model, self._loop = model, loop
        self.source, self.prompts = model.encoder.source, model.encoder.prompts

    def digest(self) -> str:
        return self._model.encoder.digest()

    def encode(self, texts: Sequence[str], /, *, prompt: str | None = None) -> Vectors:
        put = "" if prompt is None else prompt
        items, lengths, _ = self._model.prepared(texts, put)
        return np.stack(asyncio.run_coroutine_threadsafe(self._model.batcher(items, lengths), self._loop).result())


def _column(rows: Sequence[NDArray[np.int32]]) -> TokenColumn:
    offsets = np.cumsum([0, *map(len, rows)])
    return TokenColumn(flat=np.concatenate(rows), offsets=offsets, text=np.full(len(rows), UNKNOWN, dtype=np.int64))


def _rows(column: TokenColumn) -> list[NDArray[np.int32]]:
    return np.split(column.flat[column.offsets[0] : column.offsets[-1]], (column.offsets - column.offsets[0])[1:-1])
