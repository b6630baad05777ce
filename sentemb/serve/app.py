"""The HTTP side: routes, keys, limits, errors, metrics."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sentemb.errors import SearchError, SentembError
from sentemb.search.landscape import fields_of
from sentemb.serve.batching import Overloaded
from sentemb.serve.service import Service
from sentemb.serve.wire import (
    EmbeddingsRequest,
    Refusal,
    RerankRequest,
    SearchRequest,
    error_body,
    inputs_of,
    named,
    parse,
    texts_of,
)  # fmt: skip

_PAGE = {"": ("index.html", "text/html"), "page.js": ("page.js", "text/javascript"),
         "style.css": ("style.css", "text/css")}
_SAFE = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
}
Handler = Callable[[Request], Awaitable[Response]]


def app(
    service: Service, *, api_key: str | None = None, origins: Sequence[str] = (), hosts: Sequence[str] = (),
    refresh_s: float = 2.0,
) -> Starlette:
    """An ASGI application for a service.

    Args:
        api_key: what clients send as ``Authorization: Bearer …``; None: everybody is served.
        origins: web pages of these origins may call (CORS); none by default.
        hosts: names by which the server may be called; empty: all.
        refresh_s: seconds between looks for newer generations of the indexes.
    """
    web = _Web(service, api_key, refresh_s)
    middleware = []
    if hosts:  # a page elsewhere whose name resolves to this machine must not reach a server without a key
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts]))
    if origins:
        middleware.append(Middleware(
            CORSMiddleware, allow_origins=[*origins], allow_methods=["*"],
            allow_headers=["authorization", "content-type"],
        ))  # fmt: skip
    application = Starlette(routes=web.routes(), middleware=middleware, lifespan=web.lifespan)
    application.add_exception_handler(HTTPException, _http_error)
    return application


class _Web:
    """Handlers over a service."""

    def __init__(self, service: Service, api_key: str | None, refresh_s: float) -> None:
        self.service, self._key, self._refresh_s = service, api_key, refresh_s
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.answers = Counter("sentemb_requests", "Answers by route and status", ["route", "status"], **options)
        self.seconds = Histogram("sentemb_request_seconds", "Seconds of an answer", ["route"], **options)
        self.tokens = Counter("sentemb_tokens", "Tokens that were embedded", ["model"], **options)
        self.cut = Counter("sentemb_cut_texts", "Texts longer than their model reads", ["model"], **options)
        self.waiting = Gauge("sentemb_waiting_tokens", "Tokens taken on and not done", ["model"], **options)
        self.documents = Gauge("sentemb_index_documents", "Documents of an index", ["index"], **options)
        self.refreshes = Counter("sentemb_index_refreshes", "Newer generations taken up", ["index"], **options)

    def routes(self) -> list[Route]:
        """Every route; those without a key are what a browser or a load balancer asks first."""
        behind_key = [
            ("POST", "/v1/embeddings", self.embeddings), ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{name:path}", self.model), ("POST", "/v1/rerank", self.rerank),
            ("POST", "/search", self.search), ("GET", "/indexes", self.indexes), ("GET", "/documents", self.document),
            ("GET", "/map", self.map), ("GET", "/metrics", self.metrics),
        ]  # fmt: skip
        for_all = [("GET", "/health", self.health), ("GET", "/", self.page), ("GET", "/page/{name}", self.page)]
        return [
            Route(path, self._answering(path, handler, is_open=is_open), methods=[method])
            for entries, is_open in ((behind_key, False), (for_all, True)) for method, path, handler in entries
        ]

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Share encoders, look for newer generations, and finish what was taken on."""
        async with self.service.running(self._refresh_s, lambda name: self.refreshes.labels(name).inc()):
            yield

    def _answering(self, route: str, handler: Handler, *, is_open: bool) -> Handler:
        """The handler with its key, its errors as JSON, and its metrics."""

        async def answer(request: Request) -> Response:
            start = time.perf_counter()
            try:
                if not is_open:
                    self._check_key(request)
                response = await handler(request)
            except Refusal as error:
                response = _json(error_body(error.status, str(error), error.param), error.status, error.headers)
            except Overloaded as error:
                response = _json(error_body(429, str(error)), 429, {"retry-after": "1"})
            except SentembError as error:  # a filter that cannot be read, an unknown document
                status = 422 if isinstance(error, SearchError) else 400
                response = _json(error_body(status, str(error)), status)
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody reads it
            self.answers.labels(route, response.status_code).inc()
            self.seconds.labels(route).observe(time.perf_counter() - start)
            return response

        return answer

    def _check_key(self, request: Request) -> None:
        if self._key is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._key}".encode()):
            raise Refusal(401, "send the server's key as Authorization: Bearer …",
                          headers={"www-authenticate": "Bearer"})

    async def _body(self, request: Request) -> bytes:
        """A JSON body within the limits of size and time."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # also keeps plain forms of other sites out
            raise Refusal(415, f'content-type is "{kind}"; send application/json')
        limits, parts, size = self.service.limits, [], 0
        most = int(limits.body_mib * 2**20)
        try:
            async with asyncio.timeout(limits.body_s):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise Refusal(413, f"the request is larger than {limits.body_mib:g} MiB",
                                      headers={"connection": "close"})
                    parts.append(part)
        except TimeoutError:
            raise Refusal(408, f"the request did not arrive within {limits.body_s:g} s",
                          headers={"connection": "close"}) from None
        return b"".join(parts)

    # ------------------------------------------------------------------------------------------------- handlers
    async def embeddings(self, request: Request) -> Response:
        """OpenAI's embeddings."""
        body = parse(EmbeddingsRequest, await self._body(request))
        name, model = named(self.service.models, body.model, "model")
        inputs = inputs_of(body.input, self.service.limits.inputs)
        done = await model.embed(
            inputs, prompt_name=body.prompt_name, dimensions=body.dimensions, truncate=body.truncate
        )
        self.tokens.labels(name).inc(done.tokens)
        self.cut.labels(name).inc(done.cut)
        values: Any = done.vectors.tolist() if body.encoding_format == "float" else map(_base64, done.vectors)
        return _json({
            "object": "list", "model": name,
            "data": [{"object": "embedding", "index": i, "embedding": value} for i, value in enumerate(values)],
            "usage": {"prompt_tokens": done.tokens, "total_tokens": done.tokens},
        })  # fmt: skip

    async def models(self, _: Request) -> Response:
        """The models and re-rankers."""
        names = [*self.service.models, *self.service.rerankers]
        return _json({"object": "list", "data": [_model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name, _ = named({**self.service.models, **self.service.rerankers}, request.path_params["name"], "model")
        return _json(_model(name))

    async def rerank(self, request: Request) -> Response:
        """Order documents by their relevance to a query."""
        body = parse(RerankRequest, await self._body(request))
        name, _ = named(self.service.rerankers, body.model, "model")
        texts, most = texts_of(body.documents), self.service.limits.inputs
        if not texts or not body.query.strip():
            raise Refusal(422, f"{'query' if texts else 'documents'} is empty")
        if len(texts) > most:
            raise Refusal(413, f"documents has {len(texts):,} entries; at most {most:,}", param="documents")
        scores = await self.service.rerank(name, [(body.query, text) for text in texts])
        order = sorted(range(len(texts)), key=lambda place: -scores[place])[: body.top_n]
        results: list[dict[str, Any]] = [{"index": place, "relevance_score": scores[place]} for place in order]
        if body.return_documents:
            results = [{**result, "document": {"text": texts[result["index"]]}} for result in results]
        return _json({"model": name, "results": results})

    async def search(self, request: Request) -> Response:
        """Search an index."""
        return _json(await self.service.search(parse(SearchRequest, await self._body(request))))

    async def indexes(self, _: Request) -> Response:
        """The indexes, with the fields that a page can filter by."""
        described = []
        for name, index in self.service.indexes.items():
            fields = await run_in_threadpool(fields_of, index)
            described.append({"name": name, **asdict(index.stats()), "fields": fields})
        return _json({"indexes": described, "rerankers": [*self.service.rerankers]})

    async def document(self, request: Request) -> Response:
        """One document, whole."""
        _, index = named(self.service.indexes, request.query_params.get("index"), "index")
        name = request.query_params.get("id", "")
        documents = await run_in_threadpool(index.get, [name])
        if not documents:
            raise Refusal(404, f"no document with id {name!r}", param="id")
        return _json(next(iter(documents.values())))

    async def map(self, request: Request) -> Response:
        """The documents on a plane."""
        name, _ = named(self.service.indexes, request.query_params.get("index"), "index")
        landscape = await self.service.map(name)
        return _json({"index": name, "generation": landscape.generation, "points": landscape.points})

    async def health(self, _: Request) -> Response:
        """Whether it answers."""
        return _json({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        for name, model in self.service.models.items():
            self.waiting.labels(name).set(model.batcher.waiting)
        for name, index in self.service.indexes.items():
            self.documents.labels(name).set(len(index))
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        """The search page; all of it comes from here."""
        name = request.path_params.get("name", "")
        if name not in _PAGE:
            raise Refusal(404, "no such page")
        file, media_type = _PAGE[name]
        content = (files("sentemb.serve") / "page" / file).read_bytes()
        return Response(content, media_type=media_type, headers=_SAFE)


def _base64(vector: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), status, headers, "application/json")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sentemb"}


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(error_body(error.status_code, error.detail), error.status_code, dict(error.headers or {}))
