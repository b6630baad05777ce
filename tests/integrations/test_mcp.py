"""The MCP server, asked by the protocol's own client."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("mcp", reason='pip install "sentemb[mcp]"')

from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

from sentemb.cli import main
from sentemb.integrations.mcp import SHOWN, server
from sentemb.search import SearchIndex
from sentemb.serve import Service

DOCUMENTS = [
    {"id": "dog", "text": "a dog eats", "year": 2020}, {"id": "music", "text": "blue guitar music", "year": 2024},
    {"id": 3, "text": "a cat " * SHOWN, "year": 2024},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mcp") / "docs"
    SearchIndex.build(folder, DOCUMENTS, encoder=encoder).close()
    return folder


@asynccontextmanager
async def connected(folder) -> AsyncIterator[Client]:
    async with Client(server(Service(indexes={"docs": SearchIndex.open(folder)}))) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content


async def test_an_agent_sees_two_tools_and_what_there_is(folder) -> None:
    async with connected(folder) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"search", "get"}
        assert set(tools["search"].input_schema["properties"]) == {"query", "k", "where", "hybrid", "index"}
        assert all(entry.get("description") for entry in tools["search"].input_schema["properties"].values())
        assert "docs: 3 documents; metadata for filters: year" in (client.instructions or "")


async def test_search_and_get(folder) -> None:
    async with connected(folder) as client:
        hits = (await ask(client, "search", query="a dog eats", k=1))["hits"]
        assert [(hit["id"], hit["text"], hit["metadata"]) for hit in hits] == [("dog", "a dog eats", {"year": 2020})]
        hits = (await ask(client, "search", query="guitar", hybrid=True, where="year = 2024"))["hits"]
        assert hits[0]["id"] == "music"
        assert "no document has the field" in (await ask(client, "search", query="x", where="yaer = 1"))["reason"]
        answer = await ask(client, "get", ids=["3", "none"])
        assert answer["documents"][0]["text"] == "a cat " * SHOWN
        assert answer["absent"] == ["none"]


async def test_long_texts_are_shortened_in_results(folder) -> None:
    async with connected(folder) as client:
        hit = (await ask(client, "search", query="a cat a cat", where="id = 3"))["hits"][0]
        assert len(hit["text"]) == SHOWN
        assert hit["cut"] == "of 12,000 characters the first 2,000; get gives all"


@pytest.mark.parametrize(("tool", "arguments", "message"), [
    ("search", {"query": " "}, "query is empty"), ("search", {"query": "a", "k": 0}, "greater than or equal to 1"),
    ("search", {"query": "a", "k": 10**9}, "less than or equal to 100"), ("search", {}, "Field required"),
    ("search", {"query": "a", "where": "year >"}, "a value"), ("search", {"query": "a", "index": "x"}, "is not here"),
    ("search", {"query": "a", "where": "not " * 100 + "a = 1"}, "nested deeper"),
    ("get", {"ids": ["a"] * 21}, "at most 20"), ("get", {"ids": "dog"}, "valid list"), ("drop", {}, "drop"),
])  # fmt: skip
async def test_no_request_is_trusted(folder, tool, arguments, message) -> None:
    async with connected(folder) as client:
        answer = await client.call_tool(tool, arguments)
        assert answer.is_error
        assert message in answer.content[0].text
        assert "Traceback" not in answer.content[0].text
        assert (await ask(client, "search", query="a dog eats", k=1))["hits"][0]["id"] == "dog"


async def test_changes_are_taken_up(tiny_bert, tmp_path) -> None:
    import asyncio

    SearchIndex.build(tmp_path / "docs", ["a dog eats"], encoder=tiny_bert).close()
    service = Service(indexes={"docs": SearchIndex.open(tmp_path / "docs")})
    async with Client(server(service, refresh_s=0.01)) as client:
        with SearchIndex.open(tmp_path / "docs") as writer:
            writer.add([{"id": "new", "text": "blue guitar music"}])
        for _ in range(500):
            if (await ask(client, "get", ids=["new"]))["documents"]:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("the new document never came")


def test_no_index_is_one_message(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["mcp", str(tmp_path / "none")])
    assert stop.value.code == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.slow
async def test_the_command_talks_over_standard_input_and_output(folder) -> None:
    command = StdioServerParameters(command=sys.executable, args=["-m", "sentemb", "mcp", f"animals={folder}"])
    async with Client(stdio_client(command)) as client:
        assert (await ask(client, "search", query="a dog eats", k=1, index="animals"))["hits"][0]["id"] == "dog"
