"""MCP: indexes as tools of an agent, ``search`` and ``get``; ``sentemb mcp`` runs it.

Requests go through the checks, limits and shared batches of ``sentemb.serve.Service``. Long texts are shortened in
search results, because an agent pays for what it reads; ``get`` gives them whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any

from pydantic import Field, ValidationError

from sentemb.errors import SentembError, first_line, needs_extra

needs_extra("mcp", "mcp")

from mcp.server.mcpserver import MCPServer  # noqa: E402 - behind the message of its absence
from mcp.server.mcpserver.exceptions import ToolError  # noqa: E402
from starlette.concurrency import run_in_threadpool  # noqa: E402

from sentemb.serve import Service  # noqa: E402
from sentemb.serve.wire import SearchRequest, named  # noqa: E402

SHOWN = 2_000  # characters of a text in search results
DOCUMENTS = 20  # that one call of ``get`` gives
_LOOKED_AT = 100  # documents whose fields an agent is told of

Index = Annotated[str | None, Field(description="which index; may be left out where there is one only")]


def server(service: Service, *, refresh_s: float = 2.0) -> MCPServer[Any]:
    """The MCP server of a service's indexes; its ``run()`` talks over standard input and output.

    Args:
        refresh_s: how often the indexes are looked at for changes of other processes.
    """

    @asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncIterator[None]:
        async with service.running(refresh_s):
            yield

    async def search(
        query: Annotated[str, Field(description="what is looked for, in words")],
        k: Annotated[int, Field(description="number of results", ge=1, le=100)] = 10,
        where: Annotated[str | None, Field(description=(
            'metadata filter, e.g. year >= 2020 and lang in ("en", "de") and not title contains "draft"'))] = None,
        hybrid: Annotated[bool, Field(description=(
            "search by words as well as by meaning; good for names, codes and rare words"))] = False,
        index: Index = None,
    ) -> dict[str, Any]:
        """Find documents by meaning. Gives the best ones with id, score, text and metadata, best first."""
        try:
            answer = await service.search(
                SearchRequest(query=query, k=k, where=where, by="hybrid" if hybrid else "meaning", index=index)
            )
        except (SentembError, ValidationError) as error:
            raise ToolError(first_line(error)) from None
        hits = [_shown(asdict(hit)) for hit in answer["hits"]]
        return {"hits": hits, **({"reason": answer["reason"]} if answer.get("reason") else {})}

    async def get(
        ids: Annotated[list[str], Field(description="ids of documents, as search gives them", max_length=DOCUMENTS)],
        index: Index = None,
    ) -> dict[str, Any]:
        """Read whole documents by id. Ids that are not there are named as absent."""
        try:
            _, opened = named(service.indexes, index, "index")
            documents = await run_in_threadpool(opened.get, ids)
        except SentembError as error:
            raise ToolError(first_line(error)) from None
        absent = [name for name in ids if name not in documents]
        return {"documents": [asdict(one) for one in documents.values()], "absent": absent}

    agents = MCPServer("sentemb", instructions=_instructions(service), lifespan=lifespan, log_level="WARNING")
    agents.add_tool(search)
    agents.add_tool(get)
    return agents


def _shown(hit: dict[str, Any]) -> dict[str, Any]:
    text = hit["text"]
    if text is None or len(text) <= SHOWN:
        return hit
    return {**hit, "text": text[:SHOWN], "cut": f"of {len(text):,} characters the first {SHOWN:,}; get gives all"}


def _instructions(service: Service) -> str:
    lines = ["Search these indexes by meaning, and read whole documents by id:"]
    for name, index in service.indexes.items():
        fields = sorted({field for one in islice(index.documents(), _LOOKED_AT) for field in one.metadata})
        known = f"; metadata for filters: {', '.join(fields)}" if fields else ""
        lines.append(f"- {name}: {len(index):,} documents{known}")
    return "\n".join(lines)
