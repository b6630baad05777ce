"""Work of many clients for one model, done together."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from sentemb.errors import SentembError


class Overloaded(SentembError):  # noqa: N818 - reads better where it is caught
    """More work is waiting than the server takes; asking again later helps."""


@dataclass(eq=False)  # a request is itself alone; items may be arrays
class _Request:
    items: Sequence[Any]
    costs: Sequence[int]  # of the items before each, and of all
    answer: asyncio.Future[list[Any]]
    results: list[Any] = field(default_factory=list)

    @property
    def begun(self) -> int:
        return len(self.results)

    @property
    def left(self) -> int:
        return self.costs[-1] - self.costs[self.begun]

    def end_within(self, cost: int, start: int) -> int:
        """Up to which item ``cost`` reaches, from ``start`` on."""
        return bisect_right(self.costs, self.costs[start] + cost) - 1


class Batcher:
    """Gathers the items of all requests into rounds. Half of a round is the oldest request's, the rest goes to those
    that have the least left.

    A large request therefore does not hold up small ones, which fill a round together, and is not held up for ever
    either. Requests of one size end one after the other, so that new ones arrive while others are computed. One thread
    works, so that rounds do not compete for the processor; the event loop stays free.

    Args:
        work: items to one result each, called in the thread.
        round_cost: of a round, in the unit of ``costs`` (tokens). A lone text waits for the round under way; rounds of
            half the size took 3 % longer a text on two cores (all-MiniLM-L6-v2, sixteen clients of 64 texts).
        waiting_cost: more than this does not wait: ``Overloaded``. A single request may be larger.
    """

    def __init__(
        self, work: Callable[[list[Any]], Sequence[Any]], *, round_cost: int = 16_384, waiting_cost: int = 500_000
    ) -> None:
        self._work, self._round_cost, self._waiting_cost = work, round_cost, waiting_cost
        self._requests: list[_Request] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batcher")
        self._loop: asyncio.Task[None] | None = None
        self.waiting = 0  # cost of what was taken on and is not done

    async def __call__(self, items: Sequence[Any], costs: Sequence[int]) -> list[Any]:
        """The results of the items, in their order.

        Raises: Overloaded, or what ``work`` raised.
        """
        if not items:
            return []
        reached = [0, *accumulate(costs)]
        total = reached[-1]
        if self._requests and self.waiting + total > self._waiting_cost:
            raise Overloaded(f"{self.waiting:,} tokens are waiting already; try again in a moment")
        if self._loop is None:
            self._loop = asyncio.create_task(self._rounds())
        request = _Request(items, reached, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self.waiting += total
        self._wake.set()
        return await request.answer

    async def stop(self) -> None:
        """Finish what was taken on, then end."""
        answers = [request.answer for request in self._requests]
        await asyncio.gather(*answers, return_exceptions=True)
        if self._loop is not None:
            self._loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop
        self._thread.shutdown()

    async def _rounds(self) -> None:
        while True:
            self._wake.clear()
            for request in [one for one in self._requests if one.answer.cancelled()]:
                self._end(request)
            shares = self._shares()
            if not shares:
                await self._wake.wait()
                continue
            items = [item for request, end in shares for item in request.items[request.begun : end]]
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, items)
            except Exception as error:
                for request, _ in shares:
                    self._end(request, error)
                continue
            start = 0
            for request, end in shares:
                count = end - request.begun
                request.results += results[start : start + count]
                start += count
                if end == len(request.items):
                    self._end(request)

    def _shares(self) -> list[tuple[_Request, int]]:
        """The requests of the next round, each with the end of its part."""
        if not self._requests:
            return []
        oldest, remaining = self._requests[0], self._round_cost
        # an item that is larger than its part of a round is computed all the same
        ends = {oldest: max(oldest.begun + 1, oldest.end_within(remaining // 2, oldest.begun))}
        remaining -= oldest.costs[ends[oldest]] - oldest.costs[oldest.begun]
        for request in sorted(self._requests, key=lambda request: request.left):
            start = ends.get(request, request.begun)
            end = request.end_within(max(0, remaining), start)
            remaining -= request.costs[end] - request.costs[start]
            if end > request.begun:
                ends[request] = end
        return list(ends.items())

    def _end(self, request: _Request, error: Exception | None = None) -> None:
        self._requests.remove(request)
        self.waiting -= request.costs[-1]
        if request.answer.done():
            return
        if error is None:
            request.answer.set_result(request.results)
        else:
            request.answer.set_exception(error)
