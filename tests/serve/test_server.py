"""The HTTP interface, through real sockets."""

from __future__ import annotations

import base64
import itertools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
from served import DOCUMENTS, running

from sentemb import Encoder
from sentemb.search import SearchIndex
from sentemb.serve import Limits, Service, app

TEXTS = ["the cat and the river", "music", "a big red house in the city, and one more book about film"]


# ---------------------------------------------------------------------------------------------- embeddings
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openais_own_client_gets_what_encode_gives(client, encoder, encoding):
    api = openai.OpenAI(base_url=f"http://127.0.0.1:{client.port}/v1", api_key="none", max_retries=0)
    answer = api.embeddings.create(model="tiny", input=TEXTS, encoding_format=encoding)
    vectors = [
        np.frombuffer(base64.b64decode(one.embedding), dtype="<f4") if isinstance(one.embedding, str) else one.embedding
        for one in answer.data
    ]
    np.testing.assert_allclose(np.array(vectors), encoder.encode(TEXTS), atol=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == len(encoder.tokenise(TEXTS).flat)
    assert [model.id for model in api.models.list()] == ["tiny", "overlap"]
    assert api.models.retrieve("tiny").id == "tiny"


def test_token_ids_give_the_vectors_of_their_texts(client, encoder):
    column = encoder.tokenise(TEXTS)
    rows = [column.flat[begin:end].tolist() for begin, end in itertools.pairwise(column.offsets)]
    for asked in (rows, rows[0]):
        status, answer = client("POST", "/v1/embeddings", {"input": asked})
        assert status == 200
        got = np.array([one["embedding"] for one in answer["data"]])
        np.testing.assert_allclose(got, encoder.encode(TEXTS[: len(got)]), atol=1e-6)


def test_dimensions_cut_and_normalise_again(client, encoder):
    _, answer = client("POST", "/v1/embeddings", {"input": TEXTS, "dimensions": 8})
    got = np.array([one["embedding"] for one in answer["data"]])
    np.testing.assert_allclose(got, encoder.encode(TEXTS, dim=8), atol=1e-6)


def test_a_long_text_is_refused_or_cut_as_asked(client, encoder):
    long = "river " * 5000
    status, answer = client("POST", "/v1/embeddings", {"input": ["cat", long]})
    assert status == 400
    assert "1 of 2 texts are longer" in answer["error"]["message"]
    status, answer = client("POST", "/v1/embeddings", {"input": long, "truncate": True})
    assert status == 200
    np.testing.assert_allclose(answer["data"][0]["embedding"], encoder.encode(long), atol=1e-6)
    assert 'sentemb_cut_texts_total{model="tiny"} 1.0' in client("GET", "/metrics")[1]


@pytest.mark.parametrize("prompt", ["music: ", "the music of {text} and film"])
def test_named_prompts_hold_the_text(tiny_bert, prompt):
    prompted = Encoder.load(tiny_bert, precision="fp32", prompts={"query": prompt})
    with running(app(Service(models={"m": prompted}))) as client:
        _, answer = client("POST", "/v1/embeddings", {"input": "cat", "prompt_name": "query"})
        np.testing.assert_allclose(
            answer["data"][0]["embedding"], prompted.encode("cat", prompt_name="query"), atol=1e-6
        )
        status, answer = client("POST", "/v1/embeddings", {"input": "cat", "prompt_name": "other"})
        assert (status, answer["error"]["param"]) == (400, "prompt_name")


def test_many_clients_at_once_each_get_their_own(client, encoder):
    texts = [" ".join(pair) for pair in itertools.product("cat dog river".split(), repeat=2)]
    expected = encoder.encode(texts)

    def ask(number: int) -> None:
        _, answer = client("POST", "/v1/embeddings", {"input": texts[number % 9]})
        np.testing.assert_allclose(answer["data"][0]["embedding"], expected[number % 9], atol=1e-6)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(64)))


# -------------------------------------------------------------------------------------------------- search
def test_every_way_of_searching_gives_what_the_index_gives(client, index_folder):
    with SearchIndex.open(index_folder, precision="fp32") as index:
        ways = [
            ({"query": "cat 3"}, index.search("cat 3", 5)),
            ({"query": "cat 3", "by": "words"}, index.by_words(["cat 3"], 5)[0]),
            ({"query": "cat 3", "by": "hybrid"}, index.hybrid(["cat 3"], 5)[0]),
            ({"query": "cat", "where": 'kind = "a" and year > 2010'},
             index.search("cat", 5, where='kind = "a" and year > 2010')),
            ({"query": "cat", "diverse": 0.3}, index.diverse("cat", 5, weight=0.3)[0]),
            ({"more_like": "d7"}, index.similar_to(["d7"], 5)[0]),
            ({"like": ["cat", "dog"], "unlike": ["city"]}, index.combined(["cat", "dog"], ["city"], 5)),
            ({"vector": index.vectors_of_texts(["cat"])[0].tolist()}, index.search("cat", 5)),
        ]  # fmt: skip
        for asked, hits in ways:
            status, answer = client("POST", "/search", {**asked, "k": 5})
            assert status == 200, answer
            assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in hits], asked
            np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], [hit.score for hit in hits], atol=1e-5)


def test_a_reranker_orders_more_than_was_asked_for(client):
    _, answer = client("POST", "/search", {"query": "the film", "k": 3, "rerank": "overlap"})
    assert [hit["score"] for hit in answer["hits"]] == [1.0, 1.0, 1.0]


def test_rerank_orders_texts_and_objects(client):
    documents = ["a dog", {"text": "the red cat"}, "cat"]
    status, answer = client("POST", "/v1/rerank", {
        "query": "red cat", "documents": documents, "top_n": 2, "return_documents": True,
    })  # fmt: skip
    assert status == 200
    assert answer["results"] == [
        {"index": 1, "relevance_score": 1.0, "document": {"text": "the red cat"}},
        {"index": 2, "relevance_score": 0.5, "document": {"text": "cat"}},
    ]


def test_a_filter_that_nothing_can_satisfy_says_so(client):
    _, answer = client("POST", "/search", {"query": "cat", "where": "yeer > 3"})
    assert answer["hits"] == []
    assert "did you mean year?" in answer["reason"]


def test_documents_map_and_fields(client):
    assert client("GET", "/documents?id=d7")[1] == {
        "id": "d7", "text": DOCUMENTS[7]["text"], "metadata": {"kind": "b", "year": 2007},
    }  # fmt: skip
    assert client("GET", "/documents?id=none")[0] == 404
    points = client("GET", "/map")[1]["points"]
    assert [point["id"] for point in points] == [document["id"] for document in DOCUMENTS]
    (described,) = client("GET", "/indexes")[1]["indexes"]
    assert described["fields"] == [
        {"name": "kind", "kind": "text", "values": ["a", "b"]},
        {"name": "year", "kind": "number", "least": 2000, "most": 2039},
    ]
    # a document's own text lies where the document lies
    _, answer = client("POST", "/search", {"query": DOCUMENTS[7]["text"], "map": True})
    np.testing.assert_allclose(answer["place"], [points[7]["x"], points[7]["y"]], atol=1e-4)


def test_changes_of_the_index_are_seen_without_a_restart(tmp_path, tiny_bert):
    with SearchIndex.build(tmp_path / "index", DOCUMENTS, encoder=str(tiny_bert)) as writer:
        service = Service(indexes={"docs": SearchIndex.open(tmp_path / "index")})
        with running(app(service, refresh_s=0.05)) as client:
            writer.upsert([{"id": "new", "text": "a new film about music"}])
            deadline = time.monotonic() + 10
            while client("GET", "/documents?id=new")[0] != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            _, answer = client("POST", "/search", {"query": "a new film about music", "k": 1})
            assert answer["hits"][0]["id"] == "new"
            assert client("GET", "/v1/models")[1]["data"][0]["id"] == tiny_bert.name


# ------------------------------------------------------------------------------------------------ bad input
JUNK = [None, True, 1, 0, -1, 1.5, "", "?", [], {}, [None], [[]], [{}], [1, "a"], {"a": 1}, [[1, "x"]], [[-1]],
        [[10**9]], 10**30, [True], [[True]], ["a", ["b"]], "\ud800", ["ok", ""], "year >"]  # fmt: skip


def _is_text(value):
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


# path, a good request, its field, and which values that field may have
FIELDS = [
    ("/v1/embeddings", {"input": "x"}, "input", _is_text),
    ("/v1/embeddings", {"input": "x"}, "model", lambda value: value is None),
    ("/v1/embeddings", {"input": "x"}, "dimensions", lambda value: value is None or (value == 1 and value is not True)),
    ("/v1/embeddings", {"input": "x"}, "encoding_format", lambda value: False),
    ("/v1/embeddings", {"input": "x"}, "prompt_name", lambda value: value is None),
    ("/v1/rerank", {"query": "cat", "documents": ["cat"]}, "documents", lambda value: value == ["ok", ""]),
    ("/v1/rerank", {"query": "cat", "documents": ["cat"]}, "query", _is_text),
    ("/search", {"query": "cat"}, "query", _is_text),
    ("/search", {}, "vector", lambda value: False),
    ("/search", {}, "like", lambda value: False),
    ("/search", {}, "more_like", lambda value: False),
    ("/search", {"query": "cat"}, "k", lambda value: type(value) is int and value == 1),
    ("/search", {"query": "cat"}, "where", lambda value: value in (None, "")),
    ("/search", {"query": "cat"}, "by", lambda value: False),
    ("/search", {"query": "cat"}, "diverse", lambda value: value is None or value in (0, 1)),
    ("/search", {"query": "cat"}, "index", lambda value: value is None),
    ("/search", {"query": "cat"}, "nonsense", lambda value: False),
]  # fmt: skip
WRONG = [
    (path, {**good, field: value}) for path, good, field, is_good in FIELDS for value in JUNK if not is_good(value)
]


def test_malformed_requests_are_answered_with_one_sentence(client):
    assert len(WRONG) >= 300
    for path, body in WRONG:
        status, answer = client("POST", path, body)
        assert 400 <= status < 500, (path, body, status, answer)
        message = answer["error"]["message"]
        assert message, (path, body)
        assert "Traceback" not in message, (path, body)
    assert client("GET", "/health")[0] == 200


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b"[" * 100_000, 400), (b'{"input": "x"', 400), (b"null", 422),
     (b'{"input": NaN}', 400), (b'{"input": "\\ud800"}', 400)],
)  # fmt: skip
def test_bodies_that_are_no_json_are_refused(client, raw, status):
    assert client("POST", "/v1/embeddings", raw=raw)[0] == status


def test_what_is_too_large_is_refused(service_of):
    limits = Limits(body_mib=0.01, inputs=4, results=5)
    with running(app(service_of(limits=limits))) as client:
        for path, body in [
            ("/v1/embeddings", {"input": ["cat"] * 5}), ("/v1/embeddings", {"input": "cat " * 10_000}),
            ("/v1/rerank", {"query": "cat", "documents": ["cat"] * 5}), ("/search", {"query": "cat", "k": 6}),
        ]:  # fmt: skip
            status, answer = client("POST", path, body)
            assert status == 413, answer
            assert "at most" in answer["error"]["message"] or "larger than" in answer["error"]["message"]


def test_a_body_that_does_not_arrive_is_not_waited_for(service_of):
    head = b"POST /search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    with (
        running(app(service_of(limits=Limits(body_s=0.2)))) as client,
        socket.create_connection(("127.0.0.1", client.port), timeout=10) as slow,
    ):
        slow.sendall(head)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_forms_of_other_sites_and_wrong_methods_are_refused(client):
    assert client("POST", "/search", raw=b"query=cat", content_type="application/x-www-form-urlencoded")[0] == 415
    assert client("GET", "/search")[0] == 405
    assert client("GET", "/nothing")[0] == 404
    assert client("GET", "/page/../../etc/passwd")[0] == 404


def test_a_key_is_asked_for_everywhere_but_for_health_and_the_page(service_of):
    with running(app(service_of(), api_key="secret")) as client:
        for path in ("/v1/models", "/indexes", "/map", "/metrics", "/documents?id=d1"):
            assert client("GET", path)[0] == 401
            assert client("GET", path, authorization="Bearer wrong")[0] == 401
            assert client("GET", path, authorization="Bearer sécret".encode().decode("latin-1"))[0] == 401
            assert client("GET", path, authorization="Bearer secret")[0] == 200
        assert client("POST", "/v1/embeddings", {"input": "cat"})[0] == 401
        assert client("GET", "/health")[0] == client("GET", "/")[0] == 200


def test_other_host_names_and_origins_are_refused_unless_allowed(service_of):
    served = app(service_of(), hosts=["127.0.0.1"], origins=["https://example.org"])
    with running(served) as client:
        assert client("GET", "/health", host="evil.example")[0] == 400
        for origin, status in [("https://example.org", 200), ("https://evil.example", 400)]:
            assert client("OPTIONS", "/search", origin=origin, access_control_request_method="POST")[0] == status


def test_overload_is_told_and_passes(service_of):
    service = service_of(limits=Limits(waiting_tokens=50))
    held = threading.Event()
    with running(app(service)) as client:
        batcher = service.models["tiny"].batcher
        work = batcher._work
        batcher._work = lambda items: (held.wait(20), work(items))[1]
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client, "POST", "/v1/embeddings", {"input": ["the cat and the river"] * 20})
            while not batcher.waiting:
                time.sleep(0.01)
            status, answer = client("POST", "/v1/embeddings", {"input": "cat"})
            assert (status, answer["error"]["type"]) == (429, "rate_limit_error")
            held.set()
            assert first.result()[0] == 200
        assert client("POST", "/v1/embeddings", {"input": "cat"})[0] == 200


def test_a_stop_answers_what_was_taken_on(service_of):
    service, held = service_of(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with running(app(service)) as client:
            batcher = service.models["tiny"].batcher
            work = batcher._work
            batcher._work = lambda items: (held.wait(20), work(items))[1]
            answer = pool.submit(client, "POST", "/v1/embeddings", {"input": TEXTS})
            while not batcher.waiting:
                time.sleep(0.01)
            threading.Timer(0.3, held.set).start()  # while the server stops
        status, content = answer.result()
    assert status == 200
    assert len(content["data"]) == 3


def test_metrics_count_answers(client):
    client("POST", "/v1/embeddings", {"input": "cat"})
    text = client("GET", "/metrics")[1]
    assert 'sentemb_requests_total{route="/v1/embeddings",status="200"}' in text
    assert 'sentemb_index_documents{index="docs"} 40.0' in text
