"""The budget of held bytes: fair, bounded, and never stuck."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pagevec.errors import QueueFull
from pagevec.server.budget import SMALL_BYTES, SMALL_ROOM, ByteBudget

UNIT = 2 * SMALL_BYTES
TOTAL = 100 * UNIT


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_one_caller_leaves_half() -> None:
    """A caller that takes all it can get gets half; another one finds room at once."""

    async def work() -> None:
        budget = ByteBudget(TOTAL)
        with budget.hold("greedy") as first, budget.hold("greedy") as second:
            assert first.grow_now(TOTAL // 2)
            assert not second.grow_now(UNIT)
            with budget.hold("modest") as other:
                assert other.grow_now(TOTAL // 4)
            with pytest.raises(QueueFull, match="no room"):
                await second.grow(UNIT, 0.05)
        assert budget.held == 0

    run(work())


def test_small_requests_do_not_wait() -> None:
    """Small requests have room of their own, whatever large ones hold or wait for."""

    async def work() -> None:
        budget = ByteBudget(TOTAL)
        with budget.hold("a") as all_, budget.hold("b") as waits:
            assert all_.grow_now(TOTAL)
            waiting = asyncio.ensure_future(waits.grow(UNIT, 5))
            await asyncio.sleep(0)
            with budget.hold("a") as small:
                assert small.grow_now(SMALL_BYTES)
            assert not waiting.done()
            all_.settle(0)
            await waiting
            assert waits.bytes == UNIT

    run(work())


def test_who_holds_least_is_next() -> None:
    """When room is freed, the caller that holds least has it, whoever came first."""

    async def work() -> None:
        budget = ByteBudget(TOTAL)
        order: list[str] = []

        async def take(caller: str, count: int) -> None:
            with budget.hold(caller) as hold:
                await hold.grow(count, 10)
                order.append(caller)
                await asyncio.sleep(0.01)

        with budget.hold("third") as all_, budget.hold("heavy") as heavy:
            assert heavy.grow_now(30 * UNIT)
            assert all_.grow_now(TOTAL // 3)
            blocked = [asyncio.ensure_future(take("heavy", 40 * UNIT))]
            await asyncio.sleep(0)
            blocked.append(asyncio.ensure_future(take("light", 40 * UNIT)))
            await asyncio.sleep(0)
            all_.settle(0)
            await blocked[1]
            assert order == ["light"]
            heavy.settle(0)
            await blocked[0]
        assert budget.held == 0

    run(work())


def test_the_eldest_request_goes_on() -> None:
    """Two requests of one caller that grow as they arrive do not wait for each other for ever."""

    async def work() -> None:
        budget = ByteBudget(TOTAL)

        async def arrive() -> None:
            with budget.hold("a") as hold:
                for _ in range(40):
                    await hold.grow(UNIT, 5)
                    await asyncio.sleep(0)

        await asyncio.gather(arrive(), arrive(), arrive())
        assert budget.held == 0

    run(work())


def test_too_many_of_one_caller_may_not_wait() -> None:
    """What waits is bounded too; who is cancelled while it waits leaves nothing behind."""

    async def work() -> None:
        budget = ByteBudget(TOTAL)

        async def take() -> None:
            with budget.hold("a") as hold:
                await hold.grow(TOTAL, 10)

        with budget.hold("b") as all_:
            assert all_.grow_now(TOTAL)
            waiting = [asyncio.ensure_future(take()) for _ in range(256)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull, match="wait for room already"):
                await take()
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        assert budget.held == 0
        with budget.hold("c") as hold:
            assert hold.grow_now(TOTAL)

    run(work())


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.integers(0, 30)), max_size=30
)


@hypothesis_settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(steps)
def test_never_over_and_never_stuck(plan: list[tuple[str, int, int]]) -> None:
    """Whatever is asked for in whatever order: never more than there is, and all are served."""

    async def work() -> None:
        budget = ByteBudget(TOTAL)
        most = 0

        async def take(caller: str, count: int, final: int) -> None:
            nonlocal most
            with budget.hold(caller) as hold:
                await hold.grow(count * UNIT // 2, 15)
                most = max(most, budget.held)
                await asyncio.sleep(0)
                hold.settle(min(final, count) * UNIT // 2)
                await asyncio.sleep(0)

        await asyncio.gather(*(take(*step) for step in plan))
        assert most <= TOTAL + SMALL_ROOM
        assert budget.held == 0

    run(work())
