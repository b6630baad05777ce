"""A stream of records as blocks of documents with their vectors; equal texts are encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError
from sentemb.progress import Progress
from sentemb.search.store.documents import Id
from sentemb.search.store.embedding import VectorRule, encode
from sentemb.search.store.manifest import Document
from sentemb.search.store.reading import as_document
from sentemb.search.store.spool import BLOCK, MAX_KNOWN, Spool
from sentemb.types import Embedder

Vectors = NDArray[np.float32]


class EncodedStream:
    """Encodes a stream of records; a text that occurred before is not encoded again.

    Texts are remembered by a 128-bit hash, up to ``MAX_KNOWN`` of them, so that memory stays bounded.
    """

    def __init__(self, encoder: Embedder, rule: VectorRule, prompt: str, spool: Spool) -> None:
        self._encoder, self._rule, self._prompt, self._spool = encoder, rule, prompt, spool
        self._known: dict[bytes, int] = {}
        self.width: int | None = None

    def blocks(
        self, records: Iterator[Any], check: Callable[[list[Document]], None] | None = None,
        bar: Progress | None = None,
    ) -> Iterator[tuple[list[Document], Vectors]]:
        """Documents with their vectors; the caller appends each block to the spool before asking for the next.

        Args:
            check: sees a block before it is encoded, and may refuse it.
            bar: is advanced while a block is encoded.
        """
        while some := [as_document(record) for record in islice(records, BLOCK)]:
            texts = [document.text for document in some]
            empty = next((i for i, text in enumerate(texts) if not text or not text.strip()), None)
            if empty is not None:
                raise DataError(f"document {self._spool.rows + empty + 1}, id {some[empty].id!r}: no text to encode")
            if check is not None:
                check(some)
            yield some, self._vectors([text for text in texts if text is not None], bar)

    def _vectors(self, texts: Sequence[str], bar: Progress | None) -> Vectors:
        keys = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        fresh = [i for key, i in first.items() if key not in self._known]
        fresh.sort()
        base = self._spool.rows
        slot = {keys[i]: n for n, i in enumerate(fresh)}
        if fresh:
            raw = encode(self._encoder, [texts[i] for i in fresh], self._prompt, bar)
            self.width = raw.shape[1]
            made = self._rule.apply(raw, "encoded texts")
        else:
            made = np.empty((0, self._spool.dimension or 0), dtype=np.float32)
        if bar is not None:
            bar.advance(len(texts) - len(fresh))
        out = np.empty((len(texts), made.shape[1]), dtype=np.float32)
        is_new = np.array([key in slot for key in keys])
        out[is_new] = made[[slot[key] for key in keys if key in slot]]
        old = np.array([self._known[key] for key in keys if key not in slot], dtype=np.int64)
        if len(old):
            out[~is_new] = self._spool.read_rows(old)
        for i in fresh[: max(MAX_KNOWN - len(self._known), 0)]:
            self._known[keys[i]] = base + i
        return out


def ids_of(documents: Sequence[Document], next_id: int) -> list[Id]:
    """Given ids, and running numbers for documents that have none."""
    return [next_id + i if document.id is None else document.id for i, document in enumerate(documents)]
