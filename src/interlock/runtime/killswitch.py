"""The kill switch: orders are written where they outlive everything, and whoever runs agents obeys them at once.

Orders stand in a stream of their own, the last one of each scope. A guardian reads it again and again: that is how it
hears of new orders even where a message got lost, and how it knows that it still could hear of one. Who cannot know
that for longer than the guard allows stops its agents by itself.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal, NoReturn

import anyio

from interlock.protocol.base import Role
from interlock.protocol.control import AgentScope, AllScope, ControlOrder, JobScope, Order, TeamScope, stop_of
from interlock.runtime.bus import Bus
from interlock.runtime.failures import BROKER_AWAY

__all__ = ["GUARDS", "Guard", "Guardian", "JobKilled", "NodeGuardian", "Stops", "command", "describe_order"]

_log = logging.getLogger(__name__)

Guard = Literal["strict", "available"]

GUARDS: Mapping[Guard, float] = {"strict": 1.0, "available": 15.0}
"""Seconds that a guardian lets agents work on without knowing whether they were killed."""

_LOOK = 0.2
"""Seconds between two looks at the orders: the most that an order takes to be heard of, its message lost."""

_SHORTEST = 0.01
"""Seconds between two looks at the clock, at least."""


class JobKilled(Exception):
    """A standing order forbids to run this."""

    def __init__(self, order: Order) -> None:
        self.order = order
        super().__init__(f"{describe_order(order)}; `interlock resume` lifts that")


async def command(
    bus: Bus, scope: AllScope | TeamScope | JobScope | AgentScope, *, stop: bool, reason: str = ""
) -> Order:
    """Write a kill or resume order and return it with its epoch; from then on it stands, whoever restarts.

    :raises BusError: the broker cannot be reached, or does not let these credentials
    """
    order = ControlOrder(id=uuid.uuid4().hex, stop=stop, scope=scope, reason=reason, at=datetime.now(UTC))
    return Order(await bus.orders.write(order), order)


class Guardian:
    """Watches the orders for one job that runs here."""

    def __init__(self, bus: Bus, *, team: str, job: str, guard: Guard = "available") -> None:
        self._bus = bus
        self._team = team
        self._job = job
        self._guard = GUARDS[guard]
        self._orders: Mapping[str, Order] = {}

    async def check(self) -> None:
        """Look once.

        :raises JobKilled: a standing order stops the job
        :raises BusError: the broker cannot be reached
        """
        self._orders = await self._bus.orders.standing()
        stop = stop_of(self._orders, team=self._team, job=self._job)
        if stop is not None:
            raise JobKilled(stop)

    def stops(self, roles: Iterable[Role]) -> "Stops":
        """Return what is stopped of these roles and of the jobs within the job, as of the last look."""
        return _stops(self._orders, roles)

    @property
    def seconds(self) -> float:
        """How long agents may work on without its being known whether they were killed."""
        return self._guard

    async def watch(self, looked: Callable[[float], None], over: Callable[[str], None]) -> None:
        """Look until the job must stop, and call ``over`` with the reason, in the moment when that is known.

        ``looked`` is called after each look that heard something, with the end of the time for which it is good, by
        ``time.monotonic``.
        """
        limit = anyio.CancelScope(deadline=anyio.current_time() + self._guard)
        async with anyio.create_task_group() as group:
            group.start_soon(self._expire, limit, over, group.cancel_scope)
            await _look_on(self._bus, self._guard, partial(self._obey, limit, looked, over))
            group.cancel_scope.cancel()

    async def _expire(self, limit: anyio.CancelScope, over: Callable[[str], None], looking: anyio.CancelScope) -> None:
        """Say that it is over once there was no look for too long, whatever the looking waits for."""
        with limit:
            await anyio.sleep_forever()
        over(f"stopped by itself: for {self._guard:g} s it could not be known whether it was killed")
        looking.cancel()

    def _obey(
        self,
        limit: anyio.CancelScope,
        looked: Callable[[float], None],
        over: Callable[[str], None],
        orders: Mapping[str, Order],
        until: float,
    ) -> bool:
        self._orders = orders
        stop = stop_of(orders, team=self._team, job=self._job)
        if stop is not None:
            over(describe_order(stop))
            return True
        limit.deadline = _on_the_loops_clock(until)
        looked(until)
        return False


@dataclass(frozen=True, slots=True)
class Stops:
    """What standing orders stop of what works here."""

    roles: frozenset[Role] = frozenset()
    """Those whose agents may do nothing, in any job."""
    jobs: frozenset[str] = frozenset()
    """Those that were killed themselves, and with them those within them."""


class NodeGuardian:
    """Watches the orders for all that works on one machine, whatever the job."""

    def __init__(self, bus: Bus, roles: Iterable[Role], guard: Guard = "available") -> None:
        self._bus = bus
        self._roles = frozenset(roles)
        self._guard = GUARDS[guard]
        self._deadline = 0.0

    @property
    def seconds(self) -> float:
        """How long agents may work on without its being known whether they were killed."""
        return self._guard

    async def watch(self, looked: Callable[[Stops, float], None], lost: Callable[[], None]) -> NoReturn:
        """Look until cancelled.

        ``looked`` is called after each look that heard something, with what is stopped and with the end of the time for
        which that is good, by ``time.monotonic``; ``lost`` once such a time is over without another one.
        """
        self._deadline = anyio.current_time() + self._guard
        async with anyio.create_task_group() as group:
            group.start_soon(self._expire, lost)
            await _look_on(self._bus, self._guard, partial(self._tell, looked))
        raise AssertionError("there is always another look")

    def _tell(
        self, looked: Callable[[Stops, float], None], orders: Mapping[str, Order], until: float
    ) -> Literal[False]:
        self._deadline = _on_the_loops_clock(until)
        looked(_stops(orders, self._roles), until)
        return False

    async def _expire(self, lost: Callable[[], None]) -> NoReturn:
        told = -1.0
        while True:
            await anyio.sleep(max(_SHORTEST, self._deadline - anyio.current_time()))
            if anyio.current_time() >= self._deadline != told:
                told = self._deadline
                lost()


def _stops(orders: Mapping[str, Order], roles: Iterable[Role]) -> Stops:
    parts = ((role, *role.split("@")) for role in roles)
    held = (role for role, agent, team in parts if stop_of(orders, team=team, job="", agent=agent))
    scopes = (one.order.scope for one in orders.values() if one.order.stop)
    return Stops(frozenset(held), frozenset(scope.job for scope in scopes if isinstance(scope, JobScope)))


async def _look_on(bus: Bus, guard: float, looked: Callable[[Mapping[str, Order], float], bool]) -> None:
    """Look at the orders at once, whenever they may have changed, and every few moments, until ``looked`` is content.

    It is given the standing orders and until when they are good, by ``time.monotonic``: that counts from before the
    broker was asked.
    """
    while True:
        try:
            async with bus.orders.heard() as news:
                while True:
                    until = time.monotonic() + guard
                    if looked(await bus.orders.standing(), until):
                        return
                    with anyio.move_on_after(_LOOK):
                        await news.receive()
        except BROKER_AWAY as error:
            _log.info("the orders cannot be read: %s", error)
            await anyio.sleep(_LOOK)


def _on_the_loops_clock(when: float) -> float:
    """Return a time by ``time.monotonic`` as the event loop counts it."""
    return anyio.current_time() + (when - time.monotonic())


def describe_order(order: Order) -> str:
    """Say what an order stops or lifts, why, and its epoch."""
    did = "killed" if order.order.stop else "resumed"
    reason = f": {order.order.reason}" if order.order.reason else ""
    return f"{_name(order.order.scope)} {did} by order {order.epoch}{reason}"


def _name(scope: AllScope | TeamScope | JobScope | AgentScope) -> str:
    match scope:
        case AllScope():
            return "everything"
        case TeamScope():
            return f"team {scope.team}"
        case JobScope():
            return f"job {scope.job}"
        case AgentScope():
            return f"agent {scope.agent}@{scope.team}"
