"""Suspects are worked on alone, and only who dies over them alone counts."""

from contextlib import suppress
from functools import partial

import anyio
import pytest

from interlock.runtime.bus import Bus
from interlock.runtime.poison import Deaths, Turnstile

pytestmark = pytest.mark.timeout(60)


async def test_one_is_let_in_alone_and_before_those_who_come_later() -> None:
    """Who wants to be alone waits for those inside, and everybody else for him, until nobody is left who wants it."""
    turnstile, told = Turnstile(), list[str]()
    leave = {name: anyio.Event() for name in "abcdef"}

    async def visit(name: str, *, alone: bool = False) -> None:
        async with turnstile.enter(alone=alone):
            told.append(name)
            await leave[name].wait()

    async with anyio.create_task_group() as group:
        for name, alone in (("a", False), ("b", False), ("c", True), ("d", False), ("e", True), ("f", False)):
            group.start_soon(partial(visit, name, alone=alone))
            await anyio.wait_all_tasks_blocked()
        assert told == ["a", "b"]
        for name, inside in (("a", 2), ("b", 3), ("c", 4)):
            leave[name].set()
            await anyio.wait_all_tasks_blocked()
            assert len(told) == inside
        assert told[2:] == ["c", "e"]
        leave["e"].set()
        await anyio.wait_all_tasks_blocked()
        assert sorted(told[4:]) == ["d", "f"]
        for event in leave.values():
            event.set()


async def test_who_gives_up_waiting_to_be_alone_lets_the_others_in() -> None:
    """A wait that is cancelled holds nobody up."""
    turnstile = Turnstile()
    async with turnstile.enter(alone=False), anyio.create_task_group() as group:
        with anyio.move_on_after(0.01):
            async with turnstile.enter(alone=True):
                pytest.fail("somebody else is inside")
        with anyio.fail_after(5):
            async with turnstile.enter(alone=False):
                group.cancel_scope.cancel()


async def test_only_who_ends_without_a_word_counts_as_dead(bus: Bus) -> None:
    """Who leaves the block by an error or is told to stop has not died; a role knows its own dead only."""
    deaths = Deaths(bus.state, "w@t")
    assert await deaths.over(7) == 0
    with suppress(ZeroDivisionError):
        async with deaths.counted(7, 0):
            assert await deaths.over(7) == 1
            raise ZeroDivisionError
    assert await deaths.over(7) == 0
    with anyio.move_on_after(0.2) as scope:
        async with deaths.counted(7, 1):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert await deaths.over(7) == 1
    assert await Deaths(bus.state, "v@t").over(7) == 0
    assert await deaths.over(8) == 0
