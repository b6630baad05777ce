"""LlamaIndex: a model as embedding, an index as vector store.

>>> store = SentembVectorStore("docs.index")
>>> index = VectorStoreIndex.from_vector_store(store, embed_model=SentembEmbedding("MODEL"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sentemb.encoder import Encoder
from sentemb.errors import SearchError, needs_extra
from sentemb.integrations.filters import OWN_ID, all_of, among, any_of, compared, has_member, negated
from sentemb.integrations.folder import IndexFolder
from sentemb.search import Document, Hit, SearchIndex

needs_extra("llama_index", "llama-index")

from llama_index.core.base.embeddings.base import BaseEmbedding  # noqa: E402 - behind the message of its absence
from llama_index.core.bridge.pydantic import PrivateAttr  # noqa: E402
from llama_index.core.schema import BaseNode, MetadataMode, TextNode  # noqa: E402
from llama_index.core.vector_stores.types import (  # noqa: E402
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict  # noqa: E402

BATCH = 2048  # texts a call, LlamaIndex's largest: sentemb makes batches of equal lengths of them
_PLAIN = ("==", "<", "<=", ">", ">=")


class SentembEmbedding(BaseEmbedding):
    """A model as LlamaIndex's embedding; queries and texts get the prompts that the model was saved with.

    Args:
        model: an encoder, or what ``Encoder.load`` takes: a folder, a hub id, ``package:NAME/FOLDER``.
    """

    _encoder: Encoder = PrivateAttr()

    def __init__(self, model: Encoder | str | Path, *, embed_batch_size: int = BATCH) -> None:
        encoder = model if isinstance(model, Encoder) else Encoder.load(model)
        super().__init__(model_name=encoder.source, embed_batch_size=embed_batch_size)
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name of the class in what it saves."""
        return "SentembEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encoder.encode_query(query).tolist()  # type: ignore[no-any-return]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoder.encode_document(texts).tolist()  # type: ignore[no-any-return]


class SentembVectorStore(BasePydanticVectorStore):
    """An index as LlamaIndex's vector store. Vectors come from LlamaIndex, whose embedding has to be the index's model.

    Queries by meaning, by words (``text_search``), by both (``hybrid``), and diverse ones (``mmr``). A filter on a
    field that a node lacks holds for ``!=`` and ``nin`` alone.

    Args:
        index: an opened index, or a folder: its index, or the one that its first nodes make. None: a temporary folder,
            which is removed with the store.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    _folder: IndexFolder = PrivateAttr()

    def __init__(self, index: SearchIndex | str | Path | None = None) -> None:
        super().__init__()
        self._folder = IndexFolder(index)

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name of the class in what it saves."""
        return "SentembVectorStore"

    @property
    def client(self) -> SearchIndex | None:
        """The index; None before there are nodes."""
        return self._folder.index

    # ----------------------------------------------------------------------------------------------- changes
    def add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Add nodes with their embeddings, replacing those of the same ids; gives the ids. All, durably, or none."""
        documents = [
            Document(node.node_id, node.get_content(MetadataMode.NONE), node_to_metadata_dict(node, remove_text=True))
            for node in nodes
        ]
        self._folder.put(documents, np.array([node.get_embedding() for node in nodes], dtype=np.float32))
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str) -> None:
        """Delete the nodes of a document."""
        self._delete(compared("ref_doc_id", "=", ref_doc_id))

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> None:
        """Delete the nodes that have one of the ids and satisfy the filters; raises SearchError where neither is given.
        """
        if node_ids is None and filters is None:
            raise SearchError("delete_nodes needs ids or filters; clear deletes all nodes")
        self._delete(_where(filters, node_ids=node_ids))

    def clear(self) -> None:
        """Delete all nodes."""
        self._delete(None)

    def _delete(self, where: str | None) -> None:
        self._folder.delete([str(document.id) for document in self._folder.matching(where)])

    # --------------------------------------------------------------------------------------------- questions
    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """The nodes that have one of the ids and satisfy the filters."""
        return [_node(one) for one in self._folder.matching(_where(filters, node_ids=node_ids))]

    def query(self, query: VectorStoreQuery) -> VectorStoreQueryResult:
        """Answer a query.

        Raises:
            SearchError: a mode or an operator that there is not, or a query without the text or vector that it needs.
        """
        index = self._folder.index
        hits = [] if index is None else _hits(index, query)
        return VectorStoreQueryResult(
            nodes=[_node(hit) for hit in hits], similarities=[hit.score for hit in hits],
            ids=[str(hit.id) for hit in hits],
        )


def _hits(index: SearchIndex, query: VectorStoreQuery) -> list[Hit]:
    # retrievers of LlamaIndex send empty lists where they mean any node
    where = _where(query.filters, node_ids=query.node_ids or None, doc_ids=query.doc_ids or None)
    mode, k = query.mode, query.similarity_top_k
    if mode not in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE) and query.query_embedding is None:
        raise SearchError(f"a query of the mode {mode.value} needs query_embedding")
    if mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR) and not query.query_str:
        raise SearchError(f"a query of the mode {mode.value} needs query_str")
    vectors = np.array([query.query_embedding], dtype=np.float32)
    if mode == VectorStoreQueryMode.DEFAULT:
        return index.search(vectors, k, where=where)[0]
    if mode == VectorStoreQueryMode.HYBRID:
        k = query.hybrid_top_k or k
        return index.hybrid([query.query_str], k, where=where, vectors=vectors)[0]
    if mode in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE):
        return index.by_words([query.query_str], query.sparse_top_k or k, where=where)[0]
    if mode == VectorStoreQueryMode.MMR:
        weight = 0.5 if query.mmr_threshold is None else query.mmr_threshold
        return index.diverse(vectors, k, weight=weight, where=where)[0]
    raise SearchError(f"no query mode {mode.value}; known: default, hybrid, text_search, sparse, mmr")


def _node(document: Document | Hit) -> BaseNode:
    """The node that was added; of an index that others filled, a new one."""
    if "_node_content" in document.metadata:
        return metadata_dict_to_node(document.metadata, text=document.text)
    return TextNode(id_=str(document.id), text=document.text or "", metadata=document.metadata)


def _where(
    filters: MetadataFilters | None, *, node_ids: Sequence[str] | None = None, doc_ids: Sequence[str] | None = None
) -> str | None:
    parts = [_of_filters(filters)] if filters is not None and filters.filters else []
    parts += [among(OWN_ID, node_ids)] if node_ids is not None else []
    parts += [among("ref_doc_id", doc_ids)] if doc_ids is not None else []
    return all_of(parts) if parts else None


def _of_filters(filters: MetadataFilters) -> str:
    parts = [_of_filters(one) if isinstance(one, MetadataFilters) else _of_filter(one) for one in filters.filters]
    if filters.condition == FilterCondition.NOT:
        return negated(any_of(parts))
    return any_of(parts) if filters.condition == FilterCondition.OR else all_of(parts)


def _of_filter(one: MetadataFilter) -> str:
    name, value, operator = one.key, one.value, one.operator
    if operator == FilterOperator.IS_EMPTY:
        return among(name, [None, "", "[]"])  # an empty list is compared as JSON writes it
    takes_list = operator in (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
    if takes_list != isinstance(value, list):
        raise SearchError(f"filter on {name}: {operator.value} takes {'a list' if takes_list else 'one value'}; "
                          f"found {value!r}")
    if operator.value in _PLAIN:
        return compared(name, "=" if operator == FilterOperator.EQ else operator.value, value)
    if operator == FilterOperator.NE:
        return negated(compared(name, "=", value))
    if operator == FilterOperator.TEXT_MATCH:
        return compared(name, "contains", value)
    if operator == FilterOperator.CONTAINS:
        return has_member(name, value)
    if operator in (FilterOperator.IN, FilterOperator.NIN):
        return among(name, value) if operator == FilterOperator.IN else negated(among(name, value))
    if operator in (FilterOperator.ANY, FilterOperator.ALL):
        parts = [has_member(name, member) for member in value]
        return any_of(parts) if operator == FilterOperator.ANY else all_of(parts)
    raise SearchError(f"filter on {name}: no operator {operator.value}, sentemb compares texts with their case")
