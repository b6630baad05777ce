"""LangChain's own tests of embeddings and stores, and what they do not ask."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from toy import ToyEncoder

pytest.importorskip("langchain_core", reason='pip install "sentemb[langchain]"')
pytest.importorskip("langchain_tests", reason="pip install langchain-tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, VectorStoreIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from sentemb import Encoder
from sentemb.errors import DataError, SearchError
from sentemb.integrations.langchain import SentembEmbeddings, SentembVectorStore
from sentemb.search import SearchIndex

ANIMALS = [
    Document(id="1", page_content="a dog eats", metadata={"legs": 4, "tags": ["pet"]}),
    Document(id="2", page_content="a dog eats fish", metadata={"legs": 4, "lang": "en"}),
    Document(id="3", page_content="blue guitar music", metadata={"legs": 0, "lang": "de", "id": 70}),
]


class _OurEmbeddings:
    @pytest.fixture(autouse=True)
    def _model(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def embeddings_class(self) -> type[SentembEmbeddings]:
        return SentembEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Encoder]:
        return {"model": self.encoder}


class TestEmbeddings(_OurEmbeddings, EmbeddingsUnitTests):
    pass


class TestEmbeddingsIntegration(_OurEmbeddings, EmbeddingsIntegrationTests):
    pass


class TestStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> SentembVectorStore:  # type: ignore[override]
        return SentembVectorStore(embedding=self.get_embeddings())


class TestStoreOfOurModel(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, encoder: Encoder, tmp_path: Path) -> SentembVectorStore:  # type: ignore[override]
        return SentembVectorStore(tmp_path / "index", SentembEmbeddings(encoder))


@pytest.fixture
def store(encoder: Encoder, tmp_path: Path) -> SentembVectorStore:
    return SentembVectorStore.from_documents(ANIMALS, SentembEmbeddings(encoder), folder=tmp_path / "index")


def ids(documents: list[Document]) -> list[str | None]:
    return sorted(document.id for document in documents)  # type: ignore[type-var]


@pytest.mark.parametrize(("where", "expected"), [
    ({"legs": 4}, ["1", "2"]), ({"legs": {"$lt": 4}}, ["3"]), ({"lang": {"$in": ["de", "fr"]}}, ["3"]),
    ({"lang": {"$ne": "en"}}, ["1", "3"]), ({"lang": {"$nin": ["en"]}}, ["1", "3"]), ({"lang": None}, ["1"]),
    ({"$or": [{"lang": "de"}, {"legs": {"$gte": 4}, "lang": "en"}]}, ["2", "3"]), ({"$not": {"legs": 4}}, ["3"]),
    ({"lang": {"$in": []}}, []), ("legs = 0", ["3"]), (None, ["1", "2", "3"]), ({"id": 70}, ["3"]), ("id = 3", ["3"]),
])  # fmt: skip
def test_filters(store: SentembVectorStore, where, expected) -> None:
    assert ids(store.similarity_search("a dog", k=5, filter=where)) == expected


def test_ways_to_search(store: SentembVectorStore, encoder: Encoder) -> None:
    vector = SentembEmbeddings(encoder).embed_query("a dog eats")
    assert store.similarity_search_by_vector(vector, k=1) == [ANIMALS[0]]
    assert store.similarity_search("guitar", k=1, hybrid=True)[0].id == "3"
    assert store.max_marginal_relevance_search("a dog eats", k=2, fetch_k=3, lambda_mult=0)[1].id == "3"
    assert store.max_marginal_relevance_search_by_vector(vector, k=1) == [ANIMALS[0]]
    scored = store.similarity_search_with_relevance_scores("a dog eats", k=3, score_threshold=0.999)
    assert [(document.id, round(score, 5)) for document, score in scored] == [("1", 1.0)]
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 1, "filter": {"legs": 0}})
    assert retriever.invoke("a dog") == [ANIMALS[2]]


def test_an_index_of_the_command_line_opens_with_its_own_model(tiny_bert, tmp_path) -> None:
    SearchIndex.build(tmp_path / "index", [{"id": 7, "text": "a cat", "year": 2020}], encoder=tiny_bert).close()
    store = SentembVectorStore(tmp_path / "index")
    assert store.similarity_search("cat") == [Document(id="7", page_content="a cat", metadata={"year": 2020})]
    assert store.delete(["7"])
    assert store.similarity_search("cat") == []


def test_another_model_is_refused(tmp_path) -> None:
    SearchIndex.build(tmp_path / "index", ["a cat"], encoder=ToyEncoder()).close()
    with pytest.raises(SearchError, match="built by toy"):
        SentembVectorStore(tmp_path / "index", DeterministicFakeEmbedding(size=16))


def test_delete_without_ids_deletes_all_and_a_temporary_index_goes_with_its_store(encoder) -> None:
    store = SentembVectorStore.from_documents(ANIMALS, SentembEmbeddings(encoder))
    assert store.index is not None
    folder = store.index.folder
    assert store.delete()
    assert len(store.index) == 0
    del store
    assert not folder.exists()


def test_an_index_that_another_store_makes_is_taken_up(encoder, tmp_path) -> None:
    first, second = (SentembVectorStore(tmp_path / "index", SentembEmbeddings(encoder)) for _ in range(2))
    assert second.similarity_search("a dog") == []
    first.add_documents(ANIMALS)
    assert len(second.similarity_search("a dog", k=5)) == 3
    second.add_texts(["a cat"], ids=["4"])
    first.add_texts(["a river"], ids=["5"])
    assert len(first.similarity_search("a dog", k=9)) == 5


def test_changes_from_many_threads_all_arrive(store: SentembVectorStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.add_texts([f"a man {number}"], ids=[f"t{number}"]), range(8)))
    assert len(store.get_by_ids([f"t{number}" for number in range(8)])) == 8


def test_bad_input(store: SentembVectorStore) -> None:
    with pytest.raises(DataError, match="its text is int, not text"):
        store.add_texts([5])  # type: ignore[list-item]
    with pytest.raises(SearchError, match="ids are a list"):
        store.get_by_ids("1")
    assert store.add_texts(["a cat"], ids=[7]) == ["7"]  # type: ignore[list-item]
    with pytest.raises(SearchError, match="2 texts, 1 metadatas"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(SearchError, match="no operator '\\$regex'; known"):
        store.similarity_search("a", filter={"lang": {"$regex": "e"}})
    with pytest.raises(TypeError, match="colour"):
        store.similarity_search("a", colour="red")
    with pytest.raises(SearchError, match="no model that could encode"):
        SentembVectorStore().add_texts(["a"])
