"""Requests share rounds fairly, in order, within bounds, and a stop loses none."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from sentemb.serve.batching import Batcher, Overloaded


def test_results_come_back_in_order_whatever_shares_a_round():
    async def main():
        batcher = Batcher(lambda items: [10 * item for item in items], round_cost=7)
        requests = [list(range(start, start + size)) for start, size in ((0, 1), (100, 23), (200, 6), (300, 1))]
        answers = await asyncio.gather(*(batcher(items, [1] * len(items)) for items in requests))
        assert answers == [[10 * item for item in items] for items in requests]
        assert batcher.waiting == 0
        await batcher.stop()

    asyncio.run(main())


def test_items_may_be_arrays():
    async def main():
        batcher = Batcher(lambda items: [item.sum() for item in items], round_cost=4)
        requests = [[np.arange(3), np.arange(5)], [np.arange(4)], [np.arange(3), np.arange(5)]]
        answers = await asyncio.gather(*(batcher(items, [len(item) for item in items]) for items in requests))
        assert answers == [[3, 10], [6], [3, 10]]
        await batcher.stop()

    asyncio.run(main())


def test_a_small_request_does_not_wait_for_a_large_one():
    rounds = []

    async def main():
        batcher = Batcher(lambda items: rounds.append(items) or items, round_cost=10)
        large = asyncio.create_task(batcher(["large"] * 100, [1] * 100))
        await asyncio.sleep(0)
        small = asyncio.create_task(batcher(["small"], [1]))
        await small
        assert not large.done()
        await large
        await batcher.stop()

    asyncio.run(main())
    with_small = next(number for number, items in enumerate(rounds) if "small" in items)
    assert with_small <= 1
    assert rounds[with_small].count("large") == (9 if with_small else 10) or rounds[with_small].count("large") == 9


def test_requests_of_one_size_end_one_after_the_other():
    done = []

    async def main():
        held = threading.Event()
        batcher = Batcher(lambda items: (held.wait(5), items)[1], round_cost=10)

        async def ask(name):
            await batcher([name] * 10, [1] * 10)
            done.append((name, batcher.waiting))

        asking = [asyncio.create_task(ask(name)) for name in range(4)]
        await asyncio.sleep(0.02)
        held.set()
        await asyncio.gather(*asking)
        await batcher.stop()

    asyncio.run(main())
    assert [waiting for _, waiting in done] == [30, 20, 10, 0]


def test_the_oldest_request_has_half_of_every_round_however_many_small_ones_there_are():
    rounds = []

    async def main():
        batcher = Batcher(lambda items: rounds.append(items) or items, round_cost=10)
        large = asyncio.create_task(batcher(["large"] * 40, [1] * 40))
        await asyncio.sleep(0)

        async def many():
            while not large.done():
                await asyncio.gather(*(batcher(["small"], [1]) for _ in range(30)))

        await asyncio.gather(large, many())
        await batcher.stop()

    asyncio.run(main())
    counts = [items.count("large") for items in rounds[:8] if "large" in items]
    assert sum(counts) == 40
    assert min(counts) >= 5


def test_what_a_small_request_leaves_over_goes_to_the_large_ones():
    sizes = []

    async def main():
        held = threading.Event()
        batcher = Batcher(lambda items: (held.wait(5), sizes.append(len(items)), items)[-1], round_cost=12)
        first = asyncio.create_task(batcher([0], [1]))
        await asyncio.sleep(0.02)  # the first round is under way; the others meet in the second
        others = [asyncio.create_task(batcher([1] * size, [1] * size)) for size in (2, 20, 20)]
        await asyncio.sleep(0.02)
        held.set()
        await asyncio.gather(first, *others)
        await batcher.stop()

    asyncio.run(main())
    assert sizes[:2] == [1, 12]


def test_an_item_dearer_than_a_round_is_done_alone():
    async def main():
        batcher = Batcher(lambda items: items, round_cost=3)
        assert await batcher(["dear", "dear"], [50, 50]) == ["dear", "dear"]
        await batcher.stop()

    asyncio.run(main())


def test_more_than_may_wait_is_refused_and_the_rest_is_answered():
    async def main():
        held = threading.Event()
        batcher = Batcher(lambda items: (held.wait(5), items)[1], waiting_cost=10)
        first = asyncio.create_task(batcher([1] * 8, [1] * 8))
        await asyncio.sleep(0.02)
        with pytest.raises(Overloaded, match="8 tokens are waiting already"):
            await batcher([1] * 3, [1] * 3)
        second = asyncio.create_task(batcher([2], [1]))
        held.set()
        assert await first == [1] * 8
        assert await second == [2]
        await batcher.stop()

    asyncio.run(main())


def test_a_fault_reaches_its_request_and_the_next_one_works():
    def work(items):
        if "bad" in items:
            raise ValueError("no")
        return items

    async def main():
        batcher = Batcher(work)
        with pytest.raises(ValueError, match="no"):
            await batcher(["bad"], [1])
        assert await batcher(["good"], [1]) == ["good"]
        assert batcher.waiting == 0
        await batcher.stop()

    asyncio.run(main())


def test_a_stop_finishes_what_was_taken_on():
    async def main():
        batcher = Batcher(lambda items: items, round_cost=1)
        tasks = [asyncio.create_task(batcher([i] * 5, [1] * 5)) for i in range(4)]
        await asyncio.sleep(0)
        await batcher.stop()
        assert [await task for task in tasks] == [[i] * 5 for i in range(4)]

    asyncio.run(main())


def test_a_cancelled_request_frees_its_place():
    async def main():
        held = threading.Event()
        batcher = Batcher(lambda items: (held.wait(5), items)[1], round_cost=1, waiting_cost=6)
        first = asyncio.create_task(batcher([1], [1]))
        await asyncio.sleep(0.02)
        gone = asyncio.create_task(batcher([2] * 5, [1] * 5))
        await asyncio.sleep(0)
        gone.cancel()
        held.set()
        assert await first == [1]
        assert await batcher([3] * 6, [1] * 6) == [3] * 6
        assert batcher.waiting == 0
        await batcher.stop()

    asyncio.run(main())
