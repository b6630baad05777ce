"""Texts to columns of token ids, in bulk, kept on disk by content; joined, padded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.data.table import Table
from sentemb.data.templates import Template
from sentemb.data.token_files import load_columns, locked, store_columns
from sentemb.errors import DataError
from sentemb.files import cache_dir
from sentemb.progress import Progress
from sentemb.types import UNKNOWN, Examples, Frame, TokenColumn, Tokens

_CHUNK = 16_384  # rows that are hashed or tokenised at a time
CACHED_FROM = 50_000  # texts; fewer are tokenised in the time that verifying files takes


# ----------------------------------------------------------------------------------- which texts are the same
@dataclass(frozen=True, kw_only=True)
class Distinct:
    """The different texts of a sequence, in the order in which they first occur."""

    values: list[str]
    position: NDArray[np.int64]  # ``vectors[position]`` spreads what was computed for ``values`` over all rows

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """For every one of ``values``, the row where it first stands."""
        return np.flatnonzero(np.diff(np.maximum.accumulate(self.position), prepend=-1))

    @property
    def repeated(self) -> NDArray[np.int64]:
        """Rows whose value stands in an earlier row already."""
        return np.flatnonzero(self.first[self.position] != np.arange(len(self.position)))


def distinct(texts: Iterable[str]) -> Distinct:
    """Find equal texts, of one column or of several behind one another."""
    number: dict[str, int] = {}
    position = np.fromiter((number.setdefault(text, len(number)) for text in texts), dtype=np.int64)
    return Distinct(values=list(number), position=position)


def text_hashes(texts: Sequence[str]) -> NDArray[np.int64]:
    """A 63-bit hash of every text, (texts,): non-negative, the same on every machine and in every run.

    BLAKE2b cut to 63 bits: among a million distinct texts, the chance that any two collide is 5e-8.
    The sign bit stays free because -1 marks rows that are no text.
    """
    # surrogatepass: a str from outside our readers may hold lone surrogates, and hashing must not fail on them
    encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
    digests = b"".join([hashlib.blake2b(text, digest_size=8).digest() for text in encoded])
    return np.frombuffer(digests, dtype="<i8").astype(np.int64) & np.int64(2**63 - 1)


# ---------------------------------------------------------------------------------------------- token ids
@runtime_checkable
class TextTokeniser(Protocol):
    """What turns texts into token ids, special tokens included, cut to ``max_tokens``."""

    max_tokens: int

    def __call__(self, texts: list[str], template: Template | None = None) -> TokenColumn: ...

    def frame(self, template: Template) -> Frame:
        """The template's token ids without a text."""
        ...

    def fingerprint(self) -> str:
        """Equal for tokenizers that give equal ids, apart from ``max_tokens``."""
        ...


def tokenise(table: Table, tokeniser: TextTokeniser) -> Examples:
    """Token ids of all columns, each in its template.

    ``TokenColumn.text`` holds the hashes of the texts without their template: a query and a document of the same words
    are the same text. Many texts' ids are kept in ``tokens`` in sentemb's cache folder and mapped into memory.

    Raises: DataError for a text of which the tokenizer leaves nothing.
    """
    unknown = table.prefixes.keys() - table.columns.keys()
    if unknown:
        known = ", ".join(table.columns)
        raise DataError(f"{table.source}: prefixes for {', '.join(sorted(unknown))}; columns: {known}")
    return Examples(
        ids=np.arange(len(table), dtype=np.int64), columns=_columns(table, tokeniser), **table.facts()
    )


def _columns(table: Table, tokeniser: TextTokeniser) -> dict[str, TokenColumn]:
    text = {role: _hashes_of(column) for role, column in table.columns.items()}
    if len(table) * len(table.columns) >= CACHED_FROM:
        folder = cache_dir() / "tokens" / _digest(table, tokeniser, text)
        try:
            with locked(folder):
                columns = load_columns(folder, text)
                if columns is None:
                    store_columns(folder, list(text), _chunks(table, tokeniser))
                    columns = load_columns(folder, text)
            if columns is not None:
                return columns
        except OSError:
            pass  # a full or read-only disk is no reason to stop
    chunks = list(_chunks(table, tokeniser))
    return {role: replace(concatenate([chunk[role] for chunk in chunks]), text=text[role]) for role in text}


def _hashes_of(column: Sequence[str]) -> NDArray[np.int64]:
    hashes = np.empty(len(column), dtype=np.int64)
    for start in range(0, len(column), _CHUNK):
        hashes[start : start + _CHUNK] = text_hashes(column[start : start + _CHUNK])
    return hashes


def _digest(table: Table, tokeniser: TextTokeniser, text: Mapping[str, NDArray[np.int64]]) -> str:
    """Of everything that decides token ids."""
    facts = ["sentemb tokens 4", dict(table.prefixes), tokeniser.fingerprint(), tokeniser.max_tokens]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for role, hashes in text.items():
        digest.update(role.encode())
        digest.update(np.ascontiguousarray(hashes, dtype="<i8").data)
    return digest.hexdigest()


def _chunks(table: Table, tokeniser: TextTokeniser) -> Iterator[dict[str, TokenColumn]]:
    """Token ids of some rows at a time; a text that recurs among them in columns of one template is tokenised once."""
    with Progress("tokenising", total=len(table), unit="rows", enabled=len(table) > _CHUNK) as bar:
        for start in range(0, len(table), _CHUNK):
            rows = min(_CHUNK, len(table) - start)
            yield _tokens_of(table, tokeniser, start, rows)
            bar.advance(rows)


def _tokens_of(table: Table, tokeniser: TextTokeniser, start: int, rows: int) -> dict[str, TokenColumn]:
    columns: dict[str, TokenColumn] = {}
    for prompt in dict.fromkeys(table.prefixes.get(role) for role in table.columns):
        alike = [role for role in table.columns if table.prefixes.get(role) == prompt]
        unique = distinct(chain.from_iterable(table.columns[role][start : start + rows] for role in alike))
        tokens = tokeniser(unique.values, *(() if prompt is None else (Template.read(prompt),)))
        empty = [row for row in np.flatnonzero(tokens.lengths == 0) if unique.values[row]]  # "" is an absent field
        if empty:
            where = ", ".join(str(start + row % rows + 1) for row in unique.first[empty[:10]])
            raise DataError(f"{table.source}: the tokenizer leaves nothing of {len(empty)} texts, e.g. of row {where}")
        positions = np.split(unique.position, len(alike))
        columns |= {role: tokens.take(position) for role, position in zip(alike, positions, strict=True)}
    return {role: columns[role] for role in table.columns}


def column_of(rows: Sequence[Sequence[int]]) -> TokenColumn:
    """Rows of token ids, whose texts are not hashed."""
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(offsets[-1]))
    return TokenColumn(flat=flat, offsets=offsets, text=np.broadcast_to(np.int64(UNKNOWN), len(rows)))


def concatenate(columns: Sequence[TokenColumn]) -> TokenColumn:
    """All rows of the first column, then all of the second, …"""
    lengths = np.concatenate([column.lengths for column in columns])
    return TokenColumn(
        flat=np.concatenate([column.flat[column.offsets[0] : column.offsets[-1]] for column in columns]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        text=np.concatenate([column.text for column in columns]),
    )


def pad(column: TokenColumn, pad_id: int, targets: NDArray[np.int32] | None = None) -> Tokens:
    """Pad on the right to the longest row, at least to 1. ``targets`` is flat like ``column.flat``."""
    lengths = column.lengths
    mask = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]

    def rectangle(flat: NDArray[np.int32], value: int) -> Tensor:
        padded = np.full(mask.shape, value, dtype=np.int64)
        padded[mask] = flat[column.offsets[0] : column.offsets[-1]]  # in row-major order, as the flat ids are
        return torch.from_numpy(padded)

    return Tokens(
        input_ids=rectangle(column.flat, pad_id),
        attention_mask=torch.from_numpy(mask).long(),
        targets=None if targets is None else rectangle(targets, -100),
    )
