"""Where rows come from: texts through an encoder (prompt, truncation, normalisation, checks), or given vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.data.templates import prompted_texts
from sentemb.data.vector_codes import CodedVectors
from sentemb.errors import DataError, NumericError, SearchError
from sentemb.maths.neighbours import Metric
from sentemb.progress import Progress
from sentemb.search.store.documents import Row
from sentemb.search.store.manifest import Model
from sentemb.search.store.segment import BLOCK, Block
from sentemb.search.vectors.kind import Rows, Vectors
from sentemb.types import Embedder, IdentifiedEmbedder


def load_encoder(encoder: Embedder | str | Path, precision: str = "auto") -> Embedder:
    """The embedder itself, or the model that the path or id names."""
    if isinstance(encoder, (str, Path)):
        from sentemb.encoder import Encoder

        return Encoder.load(encoder, precision=precision)
    return encoder


def model_of(
    encoder: Embedder, query_prompt: str | None, document_prompt: str | None, fields: Mapping[str, float]
) -> Model:
    """What the manifest keeps of an embedder, but its width; one without a digest is known by its class."""
    source, digest = f"object:{type(encoder).__module__}.{type(encoder).__qualname__}", ""
    if isinstance(encoder, IdentifiedEmbedder):
        source, digest = encoder.source, encoder.digest()
    query, document = prompts_of(encoder, query_prompt, document_prompt)
    precision = str(getattr(encoder, "precision", "auto"))
    return Model(
        source=source, digest=digest, width=1, query_prompt=query, document_prompt=document, precision=precision,
        fields=dict(fields),
    )  # fmt: skip


def check_model(encoder: Embedder, model: Model | None, where: Path) -> None:
    """Raises SearchError for an encoder other than the one that filled the index."""
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
        if vectors.dtype.kind not in "fiu" or vectors.ndim != 2:
            raise SearchError(
                f"{what}: {vectors.dtype}, shape {vectors.shape}; expected numbers of shape (rows, dimension)"
            )
        width = vectors.shape[1]
        if width < (self.dimension or 0) or (self.width and width not in (self.dimension, self.width)):
            raise SearchError(
                f"{what}: {width} values a vector; the index needs {self.dimension}"
                + (f", or {self.width} as when it was built" if self.width else "")
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
        vectors = encoder.encode(prompted_texts(texts, prompt), **options)
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


TEXT = "text"  # the field that is a document's text


def mean_of_fields(
    encoder: Embedder, rows: Sequence[Mapping[str, str]], weights: Mapping[str, float], prompt: str,
    bar: Progress | None = None,
) -> Vectors:
    """The weighted mean of the vectors of every row's fields (rows, d); one that a row lacks has no weight there.

        v = Σ over its fields f  weight(f) · encode(text of f)  /  Σ weight(f)

    Equal texts are encoded once.

    Args:
        rows: field -> text; every row has a field of ``weights`` at least.

    Source: the vectors of several fields in generalised contrastive learning (GCL).
    Deviations: its training code is not published; that an absent field has no weight is ours.
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys(text for row in rows for text in row.values()))}
    raw = encode(encoder, list(numbers), prompt, bar)
    owners = np.array([number for number, row in enumerate(rows) for _ in row])
    places = np.array([numbers[text] for row in rows for text in row.values()])
    weight = np.array([weights[name] for row in rows for name in row], dtype=np.float32)
    mean = np.zeros((len(rows), raw.shape[1]), dtype=np.float32)
    np.add.at(mean, owners, weight[:, None] * raw[places])
    return mean / np.bincount(owners, weights=weight).astype(np.float32)[:, None]


def fields_of(row: Row, weights: Mapping[str, float]) -> dict[str, str]:
    """The texts of a document's weighted fields.

    Raises: DataError: it has none of them, or one that is no text.
    """
    name, text, metadata = row
    values = {**(json.loads(metadata) if metadata else {}), TEXT: text}
    if "title" in weights and isinstance(values.get("title"), str):  # which a document's text begins with
        values[TEXT] = (text or "").removeprefix(values["title"]).strip()
    fields = {field: values[field] for field in weights if values.get(field) not in (None, "")}
    for field, value in fields.items():
        if not isinstance(value, str):
            raise DataError(f'document {name!r}: field "{field}" is {value!r}; a field with a weight holds text')
    if not any(value.strip() for value in fields.values()):
        raise DataError(f"document {name!r}: none of the fields {', '.join(weights)} holds a text")
    return fields


def encoded_blocks(
    rows: Iterator[Row], encoder: Callable[[], Embedder], rule: VectorRule, model: Model, bar: Progress
) -> Iterator[Block]:
    """Documents with the vectors of their texts, or of their fields; equal texts of a block are encoded once.

    Args:
        encoder: is asked for when there is a document.
        model: says prompt and fields.
    """
    while part := list(islice(rows, BLOCK)):
        embedder, done = encoder(), bar.done
        cut_before = getattr(embedder, "cut_count", 0)
        if model.fields:
            texts = [fields_of(row, model.fields) for row in part]
            raw = mean_of_fields(embedder, texts, model.fields, model.document_prompt)
            vectors = rule.apply(raw, "encoded fields")
        else:
            numbers = {text or "": number for number, text in enumerate(dict.fromkeys(text for _, text, _ in part))}
            raw = encode(embedder, list(numbers), model.document_prompt, bar)
            vectors = rule.apply(raw, "encoded texts")[[numbers[text or ""] for _, text, _ in part]]
        bar.advance(done + len(part) - bar.done)
        cut = getattr(embedder, "cut_count", 0) - cut_before
        yield Block(rows=part, vectors=vectors, cut=cut, width=raw.shape[1])


class GivenRows:
    """Vectors of an array (or memory map), truncated and normalised block by block, with their documents.

    Args:
        rows: documents in the order of the vectors; they are read once.
    """

    def __init__(self, vectors: Vectors | CodedVectors, rows: Iterator[Row], rule: VectorRule) -> None:
        self._vectors, self._rows, self._rule = vectors, rows, rule
        self.dimension = self.vectors_at(slice(1)).shape[1]

    def __len__(self) -> int:
        return len(self._vectors)

    def vectors_at(self, rows: Rows | slice) -> Vectors:
        """Vectors of the given rows."""
        return self._rule.apply(self._vectors[rows], "vectors")

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Rows start … stop - 1; parts are asked for in order."""
        for first in range(start, stop, BLOCK):
            last = min(first + BLOCK, stop)
            rows = list(islice(self._rows, last - first))
            if len(rows) < last - first:
                raise SearchError(f"{len(self)} vectors, but only {first + len(rows)} documents")
            yield Block(rows=rows, vectors=self.vectors_at(slice(first, last)))
        if stop == len(self) and next(self._rows, None) is not None:
            raise SearchError(f"{len(self)} vectors, but more documents")


def counted(blocks: Iterable[Block], bar: Progress) -> Iterator[Block]:
    """The blocks, and progress by their rows."""
    for block in blocks:
        yield block
        bar.advance(len(block.rows))
