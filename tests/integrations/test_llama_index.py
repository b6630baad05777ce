"""LlamaIndex's classes over a model and an index."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason='pip install "sentemb[llama-index]"')

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from sentemb import Encoder
from sentemb.errors import SearchError
from sentemb.integrations.llama_index import SentembEmbedding, SentembVectorStore
from sentemb.search import SearchIndex

TEXTS = {
    "1": ("a dog eats", {"legs": 4, "tags": ["pet", "loud"]}, "animals"),
    "2": ("a dog eats fish", {"legs": 4, "lang": "en", "tags": ["pet"]}, "animals"),
    "3": ("blue guitar music", {"legs": 0, "lang": "de", "tags": []}, "art"),
}


@pytest.fixture
def model(encoder: Encoder) -> SentembEmbedding:
    return SentembEmbedding(encoder)


@pytest.fixture
def nodes(model) -> list[TextNode]:
    return [
        TextNode(
            id_=name, text=text, metadata=metadata, embedding=model.get_text_embedding(text),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)},
        )
        for name, (text, metadata, source) in TEXTS.items()
    ]  # fmt: skip


@pytest.fixture
def store(nodes, tmp_path) -> SentembVectorStore:
    store = SentembVectorStore(tmp_path / "index")
    assert store.add(nodes) == ["1", "2", "3"]
    return store


def filters(*entries: tuple[str, str, Any], condition: str = "and") -> MetadataFilters:
    return MetadataFilters(
        filters=[MetadataFilter(key=key, operator=FilterOperator(operator), value=value)
                 for key, operator, value in entries], condition=FilterCondition(condition),
    )  # fmt: skip


def test_vectors_are_those_of_the_encoder(model, encoder) -> None:
    assert model.get_text_embedding_batch(["a dog", "a cat"]) == encoder.encode_document(["a dog", "a cat"]).tolist()
    assert model.get_query_embedding("a dog") == encoder.encode_query("a dog").tolist()


async def test_async(model, store) -> None:
    vector = await model.aget_query_embedding("a dog eats")
    assert (await store.aquery(VectorStoreQuery(query_embedding=vector))).ids == ["1"]


@pytest.mark.parametrize(("where", "expected"), [
    (filters(("legs", "==", 4)), ["1", "2"]), (filters(("legs", "<", 4)), ["3"]),
    (filters(("lang", "!=", "en")), ["1", "3"]), (filters(("lang", "in", ["de", "fr"])), ["3"]),
    (filters(("lang", "nin", ["en"])), ["1", "3"]), (filters(("lang", "text_match", "d")), ["3"]),
    (filters(("tags", "contains", "loud")), ["1"]), (filters(("tags", "any", ["loud", "x"])), ["1"]),
    (filters(("tags", "all", ["loud", "pet"])), ["1"]), (filters(("lang", "is_empty", None)), ["1"]),
    (filters(("tags", "is_empty", None)), ["3"]),
    (filters(("lang", "==", "de"), ("legs", "==", 4), condition="or"), ["1", "2", "3"]),
    (filters(("lang", "==", "de"), ("lang", "==", "en"), condition="not"), ["1"]),
    (MetadataFilters(filters=[filters(("legs", "==", 4)), filters(("lang", "==", "en"))]), ["2"]),
    (None, ["1", "2", "3"]),
])  # fmt: skip
def test_filters(store, where, expected) -> None:
    assert [node.node_id for node in store.get_nodes(filters=where)] == expected


def test_modes(store, model) -> None:
    def ids(mode: str, text: str, **settings: Any) -> list[str]:
        query = VectorStoreQuery(
            query_embedding=model.get_query_embedding(text), query_str=text, mode=VectorStoreQueryMode(mode), **settings
        )
        return store.query(query).ids

    assert ids("default", "a dog eats fish") == ["2"]
    assert ids("text_search", "guitar", similarity_top_k=3) == ["3"]
    assert ids("hybrid", "guitar", similarity_top_k=3)[0] == "3"
    assert ids("mmr", "a dog eats", similarity_top_k=2, mmr_threshold=0.0) == ["1", "3"]
    assert ids("default", "a dog", similarity_top_k=3, doc_ids=["art"]) == ["3"]
    assert ids("default", "a dog", similarity_top_k=3, node_ids=["2"]) == ["2"]


def test_nodes_come_back_as_they_were(store, nodes, model) -> None:
    result = store.query(VectorStoreQuery(query_embedding=nodes[1].embedding))
    assert result.similarities == pytest.approx([1.0])
    node = result.nodes[0]
    assert (node.node_id, node.get_content(), node.metadata, node.ref_doc_id) == ("2", *TEXTS["2"])


def test_deleting(store) -> None:
    store.delete("animals")
    assert [node.node_id for node in store.get_nodes()] == ["3"]
    store.delete_nodes(filters=filters(("legs", "==", 4)))
    assert len(store.get_nodes()) == 1
    store.delete_nodes(["3"])
    assert store.get_nodes() == []
    store.clear()
    with pytest.raises(SearchError, match="needs ids or filters"):
        store.delete_nodes()


def test_an_index_of_llama_index_persists(model, tmp_path) -> None:
    store = SentembVectorStore(tmp_path / "index")
    documents = [Document(text="a dog eats", metadata={"year": 2020}), Document(text="blue guitar music")]
    VectorStoreIndex.from_documents(
        documents, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=model
    )
    again = VectorStoreIndex.from_vector_store(SentembVectorStore(tmp_path / "index"), embed_model=model)
    hits = again.as_retriever(similarity_top_k=1).retrieve("a dog eats")
    assert [(hit.text, hit.metadata) for hit in hits] == [("a dog eats", {"year": 2020})]


def test_an_index_of_the_command_line(tiny_bert, model, tmp_path) -> None:
    SearchIndex.build(tmp_path / "index", [{"id": 7, "text": "a cat", "year": 2020}], encoder=tiny_bert).close()
    retriever = VectorStoreIndex.from_vector_store(SentembVectorStore(tmp_path / "index"), model).as_retriever()
    (hit,) = retriever.retrieve("cat")
    assert (hit.node_id, hit.text, hit.metadata) == ("7", "a cat", {"year": 2020})


def test_a_store_without_nodes_finds_nothing(model) -> None:
    store = SentembVectorStore()
    assert store.query(VectorStoreQuery(query_embedding=model.get_query_embedding("a"))).ids == []
    assert store.client is None
    store.delete("nobody")


@pytest.mark.parametrize(("query", "message"), [
    (VectorStoreQuery(query_str="a"), "needs query_embedding"),
    (VectorStoreQuery(query_embedding=[0.0] * 32, mode=VectorStoreQueryMode.HYBRID), "needs query_str"),
    (VectorStoreQuery(query_embedding=[0.1] * 32, query_str="a", mode=VectorStoreQueryMode.SVM), "no query mode svm"),
    (VectorStoreQuery(query_embedding=[0.1] * 3), "3 values a vector"),
    (VectorStoreQuery(query_embedding=[0.1] * 32, filters=filters(("a", "in", "text"))), "takes a list"),
    (VectorStoreQuery(query_embedding=[0.1] * 32, filters=filters(("a", "==", ["x"]))), "takes one value"),
    (VectorStoreQuery(query_embedding=[0.1] * 32, filters=filters(("a", "text_match_insensitive", "x"))), "their case"),
])  # fmt: skip
def test_bad_queries(store, query, message) -> None:
    with pytest.raises(SearchError, match=message):
        store.query(query)
