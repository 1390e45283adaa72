"""Many watchers of one job share one follow, and a slow one costs neither memory nor anybody else's time."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
from tests.integration.api.api_server import Hand
from tests.waiting import eventually

from interlock.runtime.api.hub import Hub
from interlock.runtime.bus import Bus


async def write(bus: Bus, job: str, tasks: int) -> None:
    """Write a whole job."""
    hand = Hand(bus, job)
    await hand.begin(tasks)
    for index in range(tasks):
        await hand.drop(index, await hand.assign(index))
    await hand.close()


async def numbers(hub: Hub, job: str, after: int = 0) -> list[int]:
    """Return the ids of all events of a job."""
    async with hub.watching(job, after) as watch:
        return [event.seq async for event in watch]


async def test_watchers_share_one_follow(bus: Bus) -> None:
    """Each of many watchers gets everything once, whenever he came, over one follow for all of them."""
    await Hand(bus, "other").begin()
    found: list[list[int]] = []
    most = 0
    async with Hub.open(bus) as hub, anyio.create_task_group() as group:

        async def watch(after: int) -> None:
            nonlocal most
            async with hub.watching("one", after) as events:
                most = max(most, hub.follows)
                found.append([event.seq async for event in events if event.seq > 10])

        hand = Hand(bus, "one")
        await hand.begin(20)
        for index in range(20):
            group.start_soon(watch, index % 8)
            await hand.drop(index, await hand.assign(index))
        await hand.close()
    assert len(found) == 20
    assert all(one == found[0] == sorted(set(found[0])) for one in found)
    assert most == 1
    assert hub.follows == 0


async def test_a_slow_watcher_costs_no_memory(bus: Bus) -> None:
    """One who does not read is left behind, the others go on; once he reads he gets everything all the same."""
    await write(bus, "one", 120)
    async with Hub.open(bus, budget=8000) as hub:  # about a tenth of the job
        whole = await numbers(hub, "one")
        async with hub.watching("one") as slow:
            events: AsyncIterator[int] = (event.seq async for event in slow)
            seen = [await anext(events)]
            with anyio.fail_after(60):
                assert await numbers(hub, "one") == whole
                assert await numbers(hub, "one", whole[50]) == whole[51:]
            assert hub.held <= 8000
            seen += [number async for number in events]
        assert seen == whole
        assert hub.held == 0


async def test_a_place_that_is_not_there_yet(bus: Bus) -> None:
    """Who says that he has seen more than there is waits for what comes, and hides nothing from others."""
    hand = Hand(bus, "one")
    await hand.begin()
    found: dict[int, list[int]] = {}
    closed = 0
    async with Hub.open(bus) as hub, anyio.create_task_group() as group:

        async def watch(after: int) -> None:
            found[after] = await numbers(hub, "one", after)

        group.start_soon(watch, 1_000_000)
        await eventually(lambda: hub.follows == 1)
        group.start_soon(watch, 0)
        closed = await hand.close()
    assert found == {1_000_000: [closed], 0: [closed - 3, closed - 2, closed - 1, closed]}
