"""LangChain: a model as ``Embeddings``, an index as ``VectorStore``.

>>> store = SentembVectorStore("docs.index")          # the index and its model, as ``sentemb index build`` made them
>>> store.similarity_search("how do I reset my password", k=3, filter={"lang": "en", "year": {"$gte": 2020}})
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.encoder import Encoder
from sentemb.errors import SearchError, needs_extra
from sentemb.integrations.filters import of_operators
from sentemb.integrations.folder import IndexFolder
from sentemb.search import Document, Hit, SearchIndex
from sentemb.search.vectors.kind import Vectors

needs_extra("langchain_core", "langchain")

from langchain_core.documents import Document as LangChainDocument  # noqa: E402 - behind the message of its absence
from langchain_core.embeddings import Embeddings  # noqa: E402
from langchain_core.vectorstores import VectorStore  # noqa: E402

Filter = Mapping[str, Any] | str | None


class SentembEmbeddings(Embeddings):
    """A model as LangChain's embeddings; queries and documents get the prompts that the model was saved with.

    Args:
        model: an encoder, or what ``Encoder.load`` takes: a folder, a hub id, ``package:NAME/FOLDER``.
    """

    def __init__(self, model: Encoder | str | Path) -> None:
        self.encoder = model if isinstance(model, Encoder) else Encoder.load(model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents."""
        return self.encoder.encode_document(texts).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self.encoder.encode_query(text).tolist()  # type: ignore[no-any-return]


class SentembVectorStore(VectorStore):
    """An index as LangChain's vector store.

    Filters are expressions (``'year >= 2020'``) or mappings with MongoDB's operators, see
    ``sentemb.integrations.filters.of_operators``; the fields ``id`` and ``text`` are the document's own.

    Args:
        index: an opened index, or a folder: its index, or the one that its first documents make. None: a temporary
            folder, which is removed with the store.
        embedding: embeds documents and queries; None: the model that the index was built with. Any of LangChain's;
            with ``SentembEmbeddings`` the index keeps the model's digest, and refuses another model.

    Raises:
        SearchError: the index was built with another model.
    """

    def __init__(
        self, index: SearchIndex | str | Path | None = None, embedding: Embeddings | None = None
    ) -> None:
        self._embedding = embedding
        encoder = embedding.encoder if isinstance(embedding, SentembEmbeddings) else None
        self._folder = IndexFolder(index, encoder)
        self._foreign = embedding if encoder is None else None
        model = self.index.manifest.model if self.index is not None else None
        if self._foreign is not None and model is not None and model.digest:
            raise SearchError(
                f"{self._folder.path}: built by {model.source}, whose vectors others cannot be compared with; leave "
                f"embedding out, or give SentembEmbeddings of that model"
            )

    @property
    def index(self) -> SearchIndex | None:
        """The index; None before there are documents."""
        return self._folder.index

    @property
    def embeddings(self) -> Embeddings | None:
        """What the store was given to embed with."""
        return self._embedding

    # ----------------------------------------------------------------------------------------------- changes
    def add_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, *,
        ids: Sequence[str | None] | None = None,
    ) -> list[str]:
        """Add texts, replacing those of the same ids; gives the ids. All of them, durably, or none."""
        texts = list(texts)
        metadatas = metadatas or [{} for _ in texts]
        ids = ids or [None] * len(texts)
        if not len(texts) == len(metadatas) == len(ids):
            raise SearchError(f"{len(texts)} texts, {len(metadatas)} metadatas and {len(ids)} ids; give one for each")
        names = [str(uuid.uuid4() if name is None else name) for name in ids]
        documents = [Document(*entry) for entry in zip(names, texts, metadatas, strict=True)]
        vectors = None
        if self._foreign is not None and texts:
            vectors = np.array(self._foreign.embed_documents(texts), dtype=np.float32)
        self._folder.put(documents, vectors)
        return names

    def delete(self, ids: list[str] | None = None) -> bool:
        """Delete documents by id; None: all. Absent ones are no fault."""
        names = ids
        if names is None:
            names = [] if self.index is None else [str(name) for name in self.index.generation.names()]
        self._folder.delete(names)
        return True

    @classmethod
    def from_texts(
        cls, texts: list[str], embedding: Embeddings, metadatas: list[dict[str, Any]] | None = None, *,
        ids: list[str] | None = None, folder: str | Path | None = None,
    ) -> SentembVectorStore:
        """A store of these texts.

        Args:
            folder: of the index; what it holds already stays. None: a temporary one.
        """
        store = cls(folder, embedding)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    # --------------------------------------------------------------------------------------------- questions
    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """Documents by id; absent ones are left out."""
        return [
            LangChainDocument(id=str(one.id), page_content=one.text or "", metadata=one.metadata)
            for one in self._folder.documents(ids)
        ]

    def similarity_search(
        self, query: str, k: int = 4, *, filter: Filter = None, hybrid: bool = False
    ) -> list[LangChainDocument]:
        """The k nearest documents.

        Args:
            hybrid: search by words as well, fused by ranks.
        """
        return [one for one, _ in self.similarity_search_with_score(query, k, filter=filter, hybrid=hybrid)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter = None, hybrid: bool = False
    ) -> list[tuple[LangChainDocument, float]]:
        """The k nearest documents with their scores: cosines, unless the index was built with another metric."""
        if not hybrid:
            return self._asked(lambda index, where: index.search(self._query(index, query), k, where=where)[0], filter)
        vectors = self._query
        return self._asked(
            lambda index, where: index.hybrid([query], k, where=where, vectors=vectors(index, query))[0], filter
        )

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter = None
    ) -> list[LangChainDocument]:
        """The k documents nearest to a vector."""
        vectors = np.array([embedding], dtype=np.float32)
        hits = self._asked(lambda index, where: index.search(vectors, k, where=where)[0], filter)
        return [one for one, _ in hits]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Filter = None
    ) -> list[LangChainDocument]:
        """k documents near the query and unlike one another, of the fetch_k nearest."""
        return self._diverse(lambda index: self._query(index, query), k, fetch_k, lambda_mult, filter)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Filter = None
    ) -> list[LangChainDocument]:
        """k documents near a vector and unlike one another, of the fetch_k nearest."""
        vectors = np.array([embedding], dtype=np.float32)
        return self._diverse(lambda _: vectors, k, fetch_k, lambda_mult, filter)

    def _diverse(
        self, vectors: Callable[[SearchIndex], Vectors], k: int, fetch_k: int, weight: float, filter_: Filter
    ) -> list[LangChainDocument]:
        hits = self._asked(
            lambda index, where: index.diverse(vectors(index), k, weight=weight, pool=fetch_k, where=where)[0], filter_
        )
        return [one for one, _ in hits]

    def _asked(
        self, ask: Callable[[SearchIndex, str | None], list[Hit]], filter_: Filter
    ) -> list[tuple[LangChainDocument, float]]:
        where = of_operators(filter_)
        hits = [] if self.index is None else ask(self.index, where)
        return [
            (LangChainDocument(id=str(hit.id), page_content=hit.text or "", metadata=hit.metadata), hit.score)
            for hit in hits
        ]

    def _query(self, index: SearchIndex, text: str) -> Vectors:
        if self._foreign is None:
            return index.vectors_of_texts([text])
        return np.array([self._foreign.embed_query(text)], dtype=np.float32)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self.index is not None and self.index.manifest.metric != "cosine":
            raise SearchError(
                f"{self.index.folder}: measures {self.index.manifest.metric}, which has no scale from 0 to 1; "
                "score thresholds need an index of cosines"
            )
        return lambda score: min(max(score, 0.0), 1.0)
