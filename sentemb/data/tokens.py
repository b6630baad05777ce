"""Texts to columns of token ids: every distinct text once, in bulk, kept on disk by content; joined, padded."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.data.table import Table
from sentemb.data.templates import Template
from sentemb.errors import DataError
from sentemb.files import atomic_file, cache_dir
from sentemb.progress import Progress
from sentemb.types import Examples, Frame, TokenColumn, Tokens

_CHUNK = 16_384  # texts between two movements of the progress bar
CACHE_BYTES = 10 * 2**30  # what token ids on disk may take together
CACHED_FROM = 50_000  # distinct texts; fewer are tokenised in the time that verifying a file takes


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
    """Token ids of all columns, each in its template. A text that recurs in columns of one template, in whichever row
    or column, is tokenised once.

    ``TokenColumn.text`` holds the hashes of the texts without their template: a query and a document of the same words
    are the same text. Many texts' ids are kept in ``tokens`` in sentemb's cache folder.

    Raises: DataError for a text of which the tokenizer leaves nothing.
    """
    unknown = table.prefixes.keys() - table.columns.keys()
    if unknown:
        known = ", ".join(table.columns)
        raise DataError(f"{table.source}: prefixes for {', '.join(sorted(unknown))}; columns: {known}")
    columns: dict[str, TokenColumn] = {}
    for prompt in dict.fromkeys(table.prefixes.get(role) for role in table.columns):
        roles = [role for role in table.columns if table.prefixes.get(role) == prompt]
        unique = distinct(chain.from_iterable(table.columns[role] for role in roles))
        tokens = _tokens_of(unique.values, tokeniser, prompt)
        empty = np.flatnonzero(tokens.lengths == 0)
        if len(empty):
            where = ", ".join(str(row % len(table) + 1) for row in unique.first[empty[:10]])
            raise DataError(f"{table.source}: the tokenizer leaves nothing of {len(empty)} texts, e.g. of row {where}")
        rows_of = np.split(unique.position, len(roles))
        columns |= {role: tokens.take(rows) for role, rows in zip(roles, rows_of, strict=True)}
    return Examples(
        ids=np.arange(len(table), dtype=np.int64), columns={role: columns[role] for role in table.columns},
        label=table.label, label_names=table.label_names, levels=table.levels, score=table.score, margin=table.margin,
        weight=table.weight, negative_scores=table.negative_scores, grades=table.grades,
    )


def _tokens_of(texts: list[str], tokeniser: TextTokeniser, prompt: str | None) -> TokenColumn:
    hashes = text_hashes(texts)
    if len(texts) < CACHED_FROM:
        return replace(_in_chunks(texts, tokeniser, prompt), text=hashes)
    facts = f"sentemb tokens 3\0{tokeniser.fingerprint()}\0{tokeniser.max_tokens}\0{prompt or ''}\0"
    digest = hashlib.sha256(facts.encode())
    digest.update(hashes.astype("<i8").tobytes())
    entry = cache_dir() / "tokens" / f"{digest.hexdigest()}.npz"
    column = load_tokens(entry, hashes)
    if column is None:
        column = replace(_in_chunks(texts, tokeniser, prompt), text=hashes)
        store_tokens(entry, column)
    return column


def _in_chunks(texts: list[str], tokeniser: TextTokeniser, prompt: str | None) -> TokenColumn:
    template = () if prompt is None else (Template.read(prompt),)
    chunks: list[TokenColumn] = []
    with Progress("tokenising", total=len(texts), unit="texts", enabled=len(texts) > _CHUNK) as bar:
        for start in range(0, len(texts), _CHUNK):
            chunks.append(tokeniser(texts[start : start + _CHUNK], *template))
            bar.advance(len(chunks[-1]))
    return concatenate(chunks)


def load_tokens(path: Path, hashes: NDArray[np.int64]) -> TokenColumn | None:
    """The tokens of the texts with these hashes; None where they are absent, or damaged by the file's checksums."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            column = TokenColumn(flat=arrays["flat"], offsets=arrays["offsets"], text=hashes)
        os.utime(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return column if len(column) == len(hashes) else None


def store_tokens(path: Path, column: TokenColumn) -> None:
    """Keep a column, in place of the least recently used ones; a full or read-only disk is no reason to stop."""
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, flat=column.flat, offsets=column.offsets)
        entries = sorted(path.parent.glob("*.npz"), key=lambda entry: entry.stat().st_mtime, reverse=True)
        sizes = accumulate(entry.stat().st_size for entry in entries)
        for entry, size in zip(entries, list(sizes), strict=True):
            if size > CACHE_BYTES and entry != path:
                entry.unlink(missing_ok=True)
    except OSError:
        pass  # also where another process of the run stored or removed an entry at this moment


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
