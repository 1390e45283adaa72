"""Keeps a manager up to date with what operators lay down: kill orders end jobs, a new policy can end a plan."""

import logging
from collections.abc import Callable

import anyio

from interlock.protocol.control import Control, stop_of_job
from interlock.protocol.messages import JobSubmitted
from interlock.runtime.failures import BROKER_AWAY
from interlock.runtime.killswitch import describe_order
from interlock.runtime.orders import Orders

__all__ = ["ControlWatch"]

_log = logging.getLogger(__name__)

_LOOK = 0.3
"""Seconds between two looks: the most that it takes until a job is closed that was killed, or whose plan breaks a new
policy. Agents do not wait for that: supervisors stop them, and a gateway looks before each effect."""


class ControlWatch:
    """Orders and policy as they were when they were last looked at."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.control = Control()
        self.known = anyio.Event()
        """Set once it was looked at for the first time: no plan may be accepted before."""

    def stops(self, submitted: JobSubmitted) -> str | None:
        """Return why a job must end, where an order says so."""
        order = stop_of_job(self.control.orders, submitted)
        return describe_order(order) if order else None

    async def run(self, changed: Callable[[], None]) -> None:
        """Look until cancelled; call ``changed`` after each change.

        :raises interlock.protocol.errors.ProtocolError: the policy cannot be read, so nobody knows what it forbids
        :raises BusError: what no waiting will cure, such as missing permissions
        """
        while True:
            try:
                await self._look(changed)
            except BROKER_AWAY as error:
                _log.info("orders and policy cannot be read: %s", error)
            await anyio.sleep(_LOOK)

    async def _look(self, changed: Callable[[], None]) -> None:
        control = await self._orders.control()
        is_news = control.newest != self.control.newest
        self.control = control
        self.known.set()
        if is_news:
            changed()
