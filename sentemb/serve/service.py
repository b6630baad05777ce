"""Models, re-rankers and indexes of a server, and what it does with them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from sentemb.encoder import Encoder
from sentemb.encoder.source import served_name
from sentemb.errors import SentembError
from sentemb.search import Hit, SearchIndex
from sentemb.search.landscape import Landscape
from sentemb.search.query.best import RERANKED, Reranker, in_order_of, pairs_of
from sentemb.search.query.explanation import why_nothing
from sentemb.search.store.manifest import read
from sentemb.serve.batching import Batcher, Overloaded
from sentemb.serve.models import FromThreads, Limits, ServedModel
from sentemb.serve.wire import Refusal, SearchRequest, named
from sentemb.types import Vectors

_log = logging.getLogger("sentemb")
_LETTERS_A_TOKEN = 4  # a rough cost of what a cross-encoder reads


class Service:
    """What a server serves. ``sentemb.serve.app(service)`` makes it an ASGI application.

    Args:
        models: name -> encoder.
        indexes: name -> opened index; its encoder is served as well where its model is none of ``models``.
        rerankers: name -> scores of (query, text) pairs, e.g. of ``load_cross_encoder``.
    """

    def __init__(
        self, *, models: Mapping[str, Encoder] | None = None, indexes: Mapping[str, SearchIndex] | None = None,
        rerankers: Mapping[str, Reranker] | None = None, limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.indexes = dict(indexes or {})
        self.models = {name: ServedModel(encoder, self.limits) for name, encoder in (models or {}).items()}
        self.rerankers = {
            name: Batcher(score, waiting_cost=self.limits.waiting_tokens) for name, score in (rerankers or {}).items()
        }
        self._maps: dict[str, Landscape] = {}
        self._searching = 0

    async def start(self) -> None:
        """Inside the event loop: share encoders between indexes and models."""
        loop = asyncio.get_running_loop()
        for index in self.indexes.values():
            model = index.manifest.model
            if model is None or not model.digest:
                continue  # searched by vectors only
            served = next((one for one in self.models.values() if one.encoder.digest() == model.digest), None)
            if served is None:
                encoder = await run_in_threadpool(lambda: index.encoder)  # noqa: B023 - awaited at once
                if not isinstance(encoder, Encoder):
                    continue
                name = served_name(model.source)
                name = model.source if name in self.models else name
                served = self.models[name] = ServedModel(encoder, self.limits)
            index.use(FromThreads(served, loop))

    async def stop(self) -> None:
        """Finish what was taken on."""
        for batcher in [*(model.batcher for model in self.models.values()), *self.rerankers.values()]:
            await batcher.stop()

    @asynccontextmanager
    async def running(self, refresh_s: float, refreshed: Callable[[str], None] = lambda _: None) -> AsyncIterator[None]:
        """Started, looking for newer generations every ``refresh_s`` seconds (``refreshed`` is told which index moved),
        and stopped at the end."""
        await self.start()
        watching = asyncio.create_task(self._watch(refresh_s, refreshed))
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await self.stop()

    async def _watch(self, refresh_s: float, refreshed: Callable[[str], None]) -> None:
        while True:
            await asyncio.sleep(refresh_s)
            for name in await self.refresh():
                refreshed(name)

    async def refresh(self) -> list[str]:
        """Move every index to its newest generation; gives the names of those that moved. Faults are logged: what
        was open stays in use."""
        moved = []
        for name, index in self.indexes.items():
            try:
                if await run_in_threadpool(_refreshed, index):
                    moved.append(name)
            except (SentembError, OSError) as error:
                _log.warning("%s: not refreshed: %s", name, error)
        return moved

    async def rerank(self, name: str, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Scores of (query, text) pairs."""
        costs = [(len(query) + len(text)) // _LETTERS_A_TOKEN + 1 for query, text in pairs]
        return [float(score) for score in await self.rerankers[name](pairs, costs)]

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """Answer a search; raises Refusal, Overloaded or a SearchError about the request."""
        name, index = named(self.indexes, request.index, "index")
        question = request.question()
        if request.k > self.limits.results:
            raise Refusal(413, f"k = {request.k:,}; at most {self.limits.results:,}", param="k")
        if request.rerank is not None:
            named(self.rerankers, request.rerank, "rerank")
        start = time.perf_counter()
        with self._turn():
            hits = await run_in_threadpool(_ask, index, request, question)
            if request.rerank is not None and hits:
                scores = await self.rerank(request.rerank, pairs_of(request.query or "", hits))
                hits = in_order_of(scores, hits, request.k)
            ms = round(1000 * (time.perf_counter() - start), 1)
            answer: dict[str, Any] = {"index": name, "ms": ms, "hits": hits}
            if not hits and request.where:
                answer["reason"] = await run_in_threadpool(why_nothing, index.generation, request.where)
            if request.map:
                landscape = await self.map(name)
                vectors = await run_in_threadpool(_vectors, index, request, question)
                answer["place"] = landscape.place_of(vectors.mean(axis=0))
        return answer

    async def map(self, name: str) -> Landscape:
        """The map of an index, made once a generation."""
        generation = self.indexes[name].generation
        known = self._maps.get(name)
        if known is None or known.generation != generation.manifest.generation:
            known = self._maps[name] = await run_in_threadpool(Landscape.of, generation)
        return known

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._searching >= self.limits.searches:
            raise Overloaded(f"{self._searching} searches are under way; try again in a moment")
        self._searching += 1
        try:
            yield
        finally:
            self._searching -= 1


def _ask(index: SearchIndex, request: SearchRequest, question: str) -> list[Hit]:
    """In a thread: the hits of one request, more than asked for where a re-ranker picks among them."""
    where, k = request.where, request.k * (RERANKED if request.rerank else 1)
    if question == "more_like":
        assert request.more_like is not None
        return index.similar_to([request.more_like], k, where=where)[0]
    if question == "like":
        assert request.like is not None
        return index.combined(request.like, request.unlike or None, k, where=where)
    queries: Any = [request.query] if question == "query" else np.array([request.vector], dtype=np.float32)
    if request.diverse is not None:
        return index.diverse(queries, k, weight=request.diverse, where=where)[0]
    ways: dict[str, Callable[..., list[list[Hit]]]] = {
        "meaning": index.search, "words": index.by_words, "hybrid": index.hybrid
    }
    return ways[request.by](queries, k, where=where)[0]


def _vectors(index: SearchIndex, request: SearchRequest, question: str) -> Vectors:
    """What the request asks with, as vectors."""
    generation = index.generation
    if question == "more_like":
        assert request.more_like is not None
        return generation.vectors_at(np.array([*generation.positions_of([request.more_like]).values()]))
    if question == "vector":
        return generation.rule.apply(np.array([request.vector], dtype=np.float32), "vector")
    return index.vectors_of_texts([request.query] if question == "query" else request.like or [])  # type: ignore[list-item]


def _refreshed(index: SearchIndex) -> bool:
    newest, model = read(index.folder), index.manifest.model
    if newest == index.manifest:
        return False
    if newest.model is not None and model is not None and newest.model.digest != model.digest:
        raise Refusal(409, f"{index.folder}: was built again by another model; start the server again to serve it")
    return index.refresh()
