"""A table's texts to token ids: every distinct text once, in bulk, kept on disk by content."""

from __future__ import annotations

import hashlib
import os
import zipfile
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sentemb import files
from sentemb.data.distinct import distinct
from sentemb.data.hashing import text_hashes
from sentemb.data.table import Table
from sentemb.errors import DataError
from sentemb.files import atomic_file
from sentemb.progress import Progress
from sentemb.types import Examples, TokenColumn

_CHUNK = 16_384  # texts between two movements of the progress bar
CACHE_BYTES = 10 * 2**30  # what token ids on disk may take together
CACHED_FROM = 50_000  # distinct texts; fewer are tokenised in the time that verifying a file takes


class TextTokeniser(Protocol):
    """What turns texts into token ids, special tokens included, cut to ``max_tokens``."""

    max_tokens: int

    def __call__(self, texts: list[str]) -> TokenColumn: ...

    def fingerprint(self) -> str:
        """Equal for tokenizers that give equal ids, apart from ``max_tokens``."""
        ...


def tokenise(
    table: Table, tokeniser: TextTokeniser, *, cache_dir: Path | None = None, cached_from: int = CACHED_FROM
) -> Examples:
    """Token ids of all columns. A text that recurs, in whichever row or column, is tokenised once.

    ``TokenColumn.text`` holds the hashes of the texts without their prefix: a query and a document of the same words
    are the same text.

    Args:
        cache_dir: where token ids are kept; the default is ``tokens`` in sentemb's cache folder.
        cached_from: distinct texts from which on they are kept.

    Raises: DataError for a text of which the tokenizer leaves nothing.
    """
    unknown = set(table.prefixes) - set(table.columns)
    if unknown:
        known = ", ".join(table.columns)
        raise DataError(f"{table.source}: prefixes for {', '.join(sorted(unknown))}; columns: {known}")
    cache = cache_dir or files.cache_dir() / "tokens"
    hashes = {role: text_hashes(texts) for role, texts in table.columns.items()}
    columns: dict[str, TokenColumn] = {}
    for prefix in dict.fromkeys(table.prefixes.get(role, "") for role in table.columns):
        roles = [role for role in table.columns if table.prefixes.get(role, "") == prefix]
        columns |= _tokenise_alike(table, roles, prefix, hashes, tokeniser, cache, cached_from)
    ids = np.arange(len(table), dtype=np.int64)
    return Examples(
        ids=ids, columns={role: columns[role] for role in table.columns}, label=table.label, score=table.score
    )


def _tokenise_alike(
    table: Table, roles: list[str], prefix: str, hashes: dict[str, NDArray[np.int64]], tokeniser: TextTokeniser,
    cache: Path, cached_from: int,
) -> dict[str, TokenColumn]:  # fmt: skip
    """Columns with the same prefix share their distinct texts' tokens."""
    every = np.concatenate([hashes[role] for role in roles])
    unique = distinct(every.tolist())
    first, hashed = unique.first, every[unique.first]

    entry = cache / f"{_key(hashed, prefix, tokeniser)}.npz"
    column = load_tokens(entry, hashed) if len(hashed) >= cached_from else None
    if column is None:
        texts = [text for role in roles for text in table.columns[role]]
        column = _in_chunks([prefix + texts[i] for i in first], hashed, tokeniser)
        if len(hashed) >= cached_from:
            store_tokens(entry, column)
    empty = np.flatnonzero(column.lengths == 0)
    if len(empty):
        where = ", ".join(str(int(first[i]) % len(table) + 1) for i in empty[:10])
        raise DataError(f"{table.source}: the tokenizer leaves nothing of {len(empty)} texts, e.g. of row {where}")

    rows = np.split(unique.position, len(roles))
    identity = np.arange(len(hashed))
    return {
        role: column if np.array_equal(index, identity) else column.take(index)
        for role, index in zip(roles, rows, strict=True)
    }


def _in_chunks(texts: list[str], hashed: NDArray[np.int64], tokeniser: TextTokeniser) -> TokenColumn:
    flats: list[NDArray[np.int32]] = []
    lengths: list[NDArray[np.int64]] = []
    with Progress("tokenising", total=len(texts), unit="texts", enabled=None if len(texts) > _CHUNK else False) as bar:
        for start in range(0, len(texts), _CHUNK):
            chunk = tokeniser(texts[start : start + _CHUNK])
            flats.append(chunk.flat)
            lengths.append(chunk.lengths)
            bar.advance(len(chunk))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return TokenColumn(flat=np.concatenate(flats), offsets=offsets, text=hashed)


def load_tokens(path: Path, text: NDArray[np.int64]) -> TokenColumn | None:
    """The tokens of the texts with these hashes; None where they are absent, or damaged by the file's checksums."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            flat, offsets = arrays["flat"], arrays["offsets"]
        os.utime(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if flat.dtype != np.int32 or offsets.dtype != np.int64 or len(offsets) != len(text) + 1:
        return None
    return TokenColumn(flat=flat, offsets=offsets, text=text)


def store_tokens(path: Path, column: TokenColumn, *, capacity_bytes: int = CACHE_BYTES) -> None:
    """Keep a column, in place of the least recently used ones; a full or read-only disk is no reason to stop."""
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, flat=column.flat, offsets=column.offsets)
        entries = sorted(path.parent.glob("*.npz"), key=lambda entry: entry.stat().st_mtime, reverse=True)
        sizes = accumulate(entry.stat().st_size for entry in entries)
        for entry, size in zip(entries, list(sizes), strict=True):
            if size > capacity_bytes and entry != path:
                entry.unlink(missing_ok=True)
    except OSError:
        pass  # also where another process of the run stored or removed an entry at this moment


def _key(hashed: NDArray[np.int64], prefix: str, tokeniser: TextTokeniser) -> str:
    digest = hashlib.sha256(b"sentemb tokens 1\0")
    digest.update(f"{tokeniser.fingerprint()}\0{tokeniser.max_tokens}\0{prefix}\0".encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(hashed, dtype="<i8").tobytes())
    return digest.hexdigest()
