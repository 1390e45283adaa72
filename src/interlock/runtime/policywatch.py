"""Keeps a manager up to date with the operator's policy: what changes there can end a plan that is under way."""

import logging
from collections.abc import Awaitable, Callable

import anyio

from interlock.protocol.control import NO_POLICY
from interlock.runtime.failures import BROKER_AWAY
from interlock.runtime.orders import Orders

__all__ = ["PolicyWatch"]

_log = logging.getLogger(__name__)

_LOOK = 0.5
"""Seconds between two looks at the policy: the most that a change takes to end a plan. A gateway looks before each
effect, so nothing is done under an old policy meanwhile."""


class PolicyWatch:
    """The policy as it was when it was last looked at."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.policy = NO_POLICY
        self.epoch = 0
        """The policy's number, which only rises; 0: nobody laid down any."""
        self.known = anyio.Event()
        """Set once it was looked at for the first time: no plan may be accepted before."""

    async def run(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Look until cancelled; call ``changed`` after each change.

        :raises interlock.protocol.errors.ProtocolError: the policy cannot be read, so nobody knows what it forbids
        :raises BusError: what no waiting will cure, such as missing permissions
        """
        while True:
            try:
                await self._look(changed)
            except BROKER_AWAY as error:
                _log.info("the policy cannot be read: %s", error)
            await anyio.sleep(_LOOK)

    async def _look(self, changed: Callable[[], Awaitable[None]]) -> None:
        control = await self._orders.control()
        is_news = control.policy_epoch != self.epoch
        self.policy, self.epoch = control.policy, control.policy_epoch
        self.known.set()
        if is_news:
            await changed()
