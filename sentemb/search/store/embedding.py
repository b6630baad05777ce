"""Texts to the vectors that an index keeps: prompt, truncation, normalisation, and checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sentemb.errors import NumericError, SearchError
from sentemb.maths.neighbours import Metric
from sentemb.progress import Progress
from sentemb.search.store.documents import Row
from sentemb.search.store.manifest import Model
from sentemb.search.store.writing import Block
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Embedder, IdentifiedEmbedder

REMEMBERED = 16_384  # texts with their vectors: 24 MiB of 384 values


@runtime_checkable
class CountsCuts(Protocol):
    """An embedder that counts the texts that are longer than it reads."""

    cut_count: int


def load_encoder(encoder: Embedder | str | Path, precision: str = "auto") -> Embedder:
    """The embedder itself, or the model that the path or id names."""
    if isinstance(encoder, (str, Path)):
        from sentemb.encoder import Encoder

        return Encoder.load(encoder, precision=precision)
    return encoder


def model_of(encoder: Embedder, width: int, *, query_prompt: str, document_prompt: str) -> Model:
    """What the manifest keeps of an embedder; one without a digest is known by its class only."""
    source, digest = f"object:{type(encoder).__module__}.{type(encoder).__qualname__}", ""
    if isinstance(encoder, IdentifiedEmbedder):
        source, digest = encoder.source, encoder.digest()
    return Model(
        source=source, digest=digest, width=width, query_prompt=query_prompt, document_prompt=document_prompt,
        precision=str(getattr(encoder, "precision", "auto")),
    )


def check_model(encoder: Embedder, model: Model | None, where: Path) -> None:
    """Refuse an encoder other than the one that filled the index.

    Raises:
        SearchError: the digests differ.
    """
    if model is None or not model.digest or not isinstance(encoder, IdentifiedEmbedder):
        return
    digest = encoder.digest()
    if digest != model.digest:
        raise SearchError(
            f"{where}: built by {model.source} (digest {model.digest[:12]}), opened with {encoder.source} "
            f"(digest {digest[:12]}): their vectors cannot be compared; open it with the same model or build it again"
        )


@dataclass(frozen=True, kw_only=True)
class VectorRule:
    """How raw vectors become those of an index: their leading values, for cosine at unit length.

    Attributes:
        dimension: leading values to keep; None: all.
        width: of raw vectors, where it is known: others than these two widths are refused.
    """

    metric: Metric
    dimension: int | None = None
    width: int | None = None

    def apply(self, vectors: Vectors, what: str) -> Vectors:
        """Truncate and, for cosine, normalise again; a float32 C array.

        Raises:
            SearchError: a wrong shape.
            NumericError: NaN, infinity, or (cosine) a vector without a direction.
        """
        vectors = np.asarray(vectors)
        if vectors.dtype.kind not in "fiu":
            raise SearchError(f"{what}: an array of {vectors.dtype}; expected numbers")
        if vectors.ndim != 2:
            raise SearchError(f"{what}: an array of shape {vectors.shape}; expected (rows, dimension)")
        if self.dimension is not None and vectors.shape[1] < self.dimension:
            raise SearchError(f"{what}: {vectors.shape[1]} values a vector; the index needs {self.dimension}")
        if self.width is not None and vectors.shape[1] not in (self.dimension, self.width):
            raise SearchError(
                f"{what}: {vectors.shape[1]} values a vector; the index was built from vectors of {self.width} values "
                f"and keeps {self.dimension}"
            )
        leading = np.ascontiguousarray(vectors[:, : self.dimension], dtype=np.float32)
        squares = np.einsum("ij,ij->i", leading, leading)
        if not np.isfinite(squares).all():
            row = int(np.argmin(np.isfinite(squares)))
            raise NumericError(f"{what}: row {row} holds NaN, infinity or values whose squares overflow")
        if self.metric != "cosine" or len(leading) == 0:
            return leading
        if squares.min() <= 0:
            raise NumericError(f"{what}: row {int(np.argmin(squares))} is all zeros, so it has no cosine")
        if np.abs(squares - 1).max() < 1e-6:
            return leading  # unit length already: leave the bits alone
        normalised: Vectors = leading / np.sqrt(squares)[:, None]
        return normalised


def encode(encoder: Embedder, texts: Sequence[str], prompt: str, bar: Progress | None = None) -> Vectors:
    """Raw vectors of texts with a prompt in front (none: the encoder's own default).

    Args:
        bar: is advanced by the number of texts, bit by bit where the encoder takes a ``progress``.
    """
    before = 0 if bar is None else bar.done
    options: dict[str, Any] = {}
    if bar is not None and "progress" in signature(encoder.encode).parameters:
        options["progress"] = bar
    if prompt and isinstance(encoder, IdentifiedEmbedder):
        vectors = encoder.encode(list(texts), prompt=prompt, **options)
    else:
        vectors = encoder.encode([prompt + text for text in texts] if prompt else list(texts), **options)
    if bar is not None:
        bar.advance(before + len(texts) - bar.done)  # the encoder may not count what it met twice, or anything
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise SearchError(f"the encoder gave shape {vectors.shape} for {len(texts)} texts; expected ({len(texts)}, d)")
    return vectors


def prompts_of(encoder: Embedder, query: str | None, document: str | None) -> tuple[str, str]:
    """Prompts for queries and documents: those given, else what the model's own prompt names say."""
    known = encoder.prompts if isinstance(encoder, IdentifiedEmbedder) else {}
    if query is None:
        query = known.get("query", "")
    if document is None:
        document = next((known[name] for name in ("document", "passage", "corpus") if name in known), "")
    return query, document


class TextBlocks:
    """Documents on their way into a segment: encoded block by block, equal texts of a block once.

    Texts that occurred in an earlier block are remembered with their vectors, up to ``REMEMBERED`` of them.

    Attributes:
        width: of the encoder's own vectors, once there are some.
    """

    def __init__(self, encoder: Callable[[], Embedder], rule: VectorRule, prompt: str) -> None:
        self._encoder, self._rule, self._prompt = encoder, rule, prompt  # the encoder is loaded for the first text
        self._known: dict[str, Vectors] = {}
        self.width: int | None = None

    def encoded(self, rows: Sequence[Row], bar: Progress) -> Block:
        """The rows with their vectors."""
        texts = [text or "" for _, text, _ in rows]
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        vectors: dict[str, Vectors] = {}
        encoder = self._encoder()
        before = encoder.cut_count if isinstance(encoder, CountsCuts) else 0
        if new:
            raw = encode(encoder, new, self._prompt, bar)
            self.width = raw.shape[1]
            vectors = dict(zip(new, self._rule.apply(raw, "encoded texts"), strict=True))
        bar.advance(len(texts) - len(new))
        block = np.stack([vectors[text] if text in vectors else self._known[text] for text in texts])
        for text in new[: max(REMEMBERED - len(self._known), 0)]:
            self._known[text] = vectors[text].copy()  # a view would keep all of its block
        cut = encoder.cut_count - before if isinstance(encoder, CountsCuts) else 0
        return Block(rows=rows, vectors=block, cut=cut)
