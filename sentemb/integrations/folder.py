"""A search index that another library fills bit by bit: its first documents make it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sentemb.errors import DataError, SearchError
from sentemb.search import Document, SearchIndex
from sentemb.search.store.disk import on_disk
from sentemb.search.store.embedding import encode, prompts_of
from sentemb.search.vectors.kind import Vectors
from sentemb.types import Embedder

WAIT_S = 60.0  # for another process that is writing
NO_MODEL = "has no model that could encode texts; give one, or vectors"


class IndexFolder:
    """The index in a folder, if there is one yet.

    Args:
        index: an opened index, or a folder, whose index is opened where there is one; None: a temporary folder, which
            is removed with this object.
        encoder: encodes documents and queries; None: the model that the index was built with, or none: whoever uses
            the folder then gives vectors.
    """

    def __init__(self, index: SearchIndex | str | Path | None = None, encoder: Embedder | None = None) -> None:
        self._index: SearchIndex | None = None
        self._encoder, self._lock = encoder, threading.Lock()
        if isinstance(index, SearchIndex):
            self.path, self._index = index.folder, index
            if encoder is not None:
                index.use(encoder)
            return
        self.path = Path(tempfile.mkdtemp(prefix="sentemb-index-") if index is None else index)
        if index is None:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        _ = self.index  # an index of another model is refused at once

    @property
    def index(self) -> SearchIndex | None:
        """The index; None before there are documents. One that another process made meanwhile is opened."""
        if self._index is None and on_disk(self.path) is not None:
            self._index = SearchIndex.open(self.path, encoder=self._encoder, wait_s=WAIT_S)
        return self._index

    def __len__(self) -> int:
        return 0 if self.index is None else len(self.index)

    def encoded(self, texts: Sequence[str]) -> Vectors:
        """Vectors of documents' texts, with the prompt of the index's documents."""
        if not all(text.strip() for text in texts):
            raise DataError("a document has neither a vector nor a text to encode; give it one of them")
        encoder, model = self._encoder, None if self.index is None else self.index.manifest.model
        if encoder is None:
            if self.index is None or model is None:
                raise SearchError(f"{self.path}: {NO_MODEL}")
            encoder = self.index.encoder
        prompt = prompts_of(encoder, None, None)[1] if model is None else model.document_prompt
        return encode(encoder, texts, prompt)

    def put(self, documents: Sequence[Document], vectors: Vectors | None = None) -> None:
        """Add documents, replacing those of the same ids, of several with one id the last; all, durably, or none.

        Args:
            vectors: of the documents; None: their texts are encoded.
        """
        last = {str(document.id): row for row, document in enumerate(documents)}
        rows = list(last.values())
        documents = [documents[row] for row in rows]
        if not documents:
            return
        if vectors is not None:
            vectors = np.asarray(vectors, dtype=np.float32)[rows]
        with self._lock:
            index = self.index
            if index is not None:
                if vectors is None and index.manifest.model is None:  # the index knows no prompt
                    vectors = self.encoded([document.text or "" for document in documents])
                index.upsert(documents, vectors=vectors)
                return
            if vectors is None and self._encoder is None:
                raise SearchError(f"{self.path}: {NO_MODEL}")
            encoder = None if vectors is not None else self._encoder
            index = SearchIndex.build(self.path, documents, encoder=encoder, vectors=vectors, wait_s=WAIT_S)
            if self._encoder is not None:
                index.use(self._encoder)  # for texts that come without a vector
            self._index = index

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents, durably; gives how many there were."""
        index = self.index
        with self._lock:
            return 0 if index is None else index.delete(ids)

    def documents(self, ids: Sequence[str]) -> list[Document]:
        """The documents with these ids, in this order; absent ones are left out."""
        documents = {} if self.index is None else self.index.get(ids)
        return [documents[name] for name in ids if name in documents]

    def matching(self, where: str | None) -> Iterator[Document]:
        """The documents that a filter finds, in the order in which they were added."""
        return iter(()) if self.index is None else self.index.documents(where)
