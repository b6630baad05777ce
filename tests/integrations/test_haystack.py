"""Haystack's own tests of document stores, and a pipeline that is saved and loaded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("haystack", reason='pip install "sentemb[haystack]"')

from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ByteStream
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.testing.document_store import DocumentStoreBaseTests

from sentemb.errors import DataError
from sentemb.integrations.haystack import (
    SentembDocumentEmbedder,
    SentembDocumentStore,
    SentembRetriever,
    SentembTextEmbedder,
)


class Wide:
    """Vectors of the width that Haystack's tests give to some of their documents."""

    def encode(self, texts):
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") for text in texts]
        return np.array([np.random.default_rng(seed).normal(size=768) for seed in seeds])


class TestStore(DocumentStoreBaseTests):
    @pytest.fixture
    def document_store(self, tmp_path: Path) -> SentembDocumentStore:
        store = SentembDocumentStore(str(tmp_path / "index"))
        store._folder._encoder = Wide()
        return store

    @staticmethod
    def assert_documents_are_equal(received, expected) -> None:
        """The store keeps vectors to itself."""
        assert received == [replace(one, embedding=None) for one in expected]

    def test_write_documents(self, document_store) -> None:
        one = Document(content="test doc")
        assert document_store.write_documents([one]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([one])
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([Document(content="twice"), Document(content="twice")])


@pytest.fixture
def store(tiny_bert, tmp_path) -> SentembDocumentStore:
    store = SentembDocumentStore(str(tmp_path / "index"), model=str(tiny_bert), precision="fp32")
    store.write_documents([
        Document(id="1", content="a dog eats", meta={"legs": 4}), Document(id="2", content="blue guitar music"),
    ])  # fmt: skip
    return store


def test_a_pipeline_is_saved_and_loaded(tiny_bert, tmp_path) -> None:
    store = SentembDocumentStore(str(tmp_path / "index"))
    writing = Pipeline()
    writing.add_component("embed", SentembDocumentEmbedder(str(tiny_bert), "fp32", meta_fields_to_embed=["title"]))
    writing.add_component("write", DocumentWriter(store))
    writing.connect("embed.documents", "write.documents")
    dog = Document(content="a dog eats", meta={"title": "pets", "legs": 4})
    documents = [dog, Document(content="blue guitar music")]
    assert writing.run({"embed": {"documents": documents}})["write"]["documents_written"] == 2
    assert documents[0].embedding is None

    asking = Pipeline()
    asking.add_component("query", SentembTextEmbedder(str(tiny_bert), "fp32"))
    asking.add_component("find", SentembRetriever(store, top_k=1, filter_policy=FilterPolicy.MERGE))
    asking.connect("query.embedding", "find.query_embedding")
    again = Pipeline.loads(asking.dumps(), allowed_modules=["sentemb.integrations.haystack"])
    (hit,) = again.run({"query": {"text": "pets\na dog eats"}})["find"]["documents"]
    assert (hit.content, hit.meta, round(hit.score, 5)) == ("a dog eats", documents[0].meta, 1.0)
    (hit,) = again.run({"query": {"text": "x"}, "find": {"query": "guitar"}})["find"]["documents"]
    assert hit.content == "blue guitar music"


def test_documents_with_and_without_vectors_meet(store, encoder) -> None:
    vector = encoder.encode_document("blue guitar").tolist()
    store.write_documents([Document(id="3", content="given", embedding=vector), Document(id="4", content="a cat")])
    retriever = SentembRetriever(store)
    assert [one.id for one in retriever.run(vector, top_k=1)["documents"]] == ["3"]
    cat = encoder.encode_query("a cat").tolist()
    assert [one.id for one in retriever.run(cat, top_k=1)["documents"]] == ["4"]
    legs = {"field": "meta.legs", "operator": ">=", "value": 4}
    assert [one.id for one in retriever.run(cat, filters=legs)["documents"]] == ["1"]
    assert [one.id for one in store.filter_documents({"field": "content", "operator": "==", "value": "given"})] == ["3"]


def test_the_documents_own_id_and_a_field_of_that_name(store) -> None:
    store.write_documents([Document(id="5", content="a river", meta={"id": 70})])
    for field, value in (("id", "5"), ("meta.id", 70), ("content", "a river")):
        found = store.filter_documents({"field": field, "operator": "==", "value": value})
        assert [one.id for one in found] == ["5"]


def test_policies(store) -> None:
    new, other = Document(id="1", content="new"), Document(id="9", content="other")
    assert store.write_documents([new, other], DuplicatePolicy.SKIP) == 1
    assert {one.content for one in store.filter_documents()} == {"a dog eats", "blue guitar music", "other"}
    assert store.write_documents([new, other], DuplicatePolicy.OVERWRITE) == 2
    assert store.count_documents() == 3


def test_bad_input(store, tiny_bert) -> None:
    with pytest.raises(ValueError, match="blob"):
        store.write_documents([Document(blob=ByteStream(b"x"))])
    with pytest.raises(DataError, match="neither a vector nor a text"):
        store.write_documents([Document(content=" "), Document(content="a", embedding=[0.1] * 32)])
    with pytest.raises(TypeError, match="SentembDocumentEmbedder embeds documents"):
        SentembTextEmbedder(str(tiny_bert)).run([Document(content="a")])
    with pytest.raises(TypeError, match="a list of documents"):
        SentembDocumentEmbedder(str(tiny_bert)).run("a")
    with pytest.raises(TypeError, match="give a SentembDocumentStore"):
        SentembRetriever("index")
    for filters in ({"field": "a", "operator": "~", "value": 1}, {"operator": "XOR", "conditions": []},
                    {"operator": "AND", "conditions": ["a"]}, {"field": "`", "operator": "==", "value": 1}):
        with pytest.raises(FilterError):
            store.filter_documents(filters)
