"""Where a command's log is: with a broker of its own on a state folder, or with one that runs elsewhere."""

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from interlock.runtime._background import beside
from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker, running_broker
from interlock.runtime.broker_errors import StateFolderInUse
from interlock.runtime.bus import Bus, BusSettings
from interlock.runtime.bus_errors import BrokerUnreachable
from interlock.runtime.credentials import Party
from interlock.runtime.keyring import login_of

__all__ = ["NAMESPACE", "Place", "open_bus", "open_log", "while_there"]

_log = logging.getLogger(__name__)

NAMESPACE = "main"
"""The namespace that commands work in."""


_SETTLED = 10.0
"""Seconds within which a command that begins or ends is done with it, on a machine that has a lot else to do."""

_GONE = 15.0
"""Seconds without a broker after which it has gone: who runs it starts it again sooner."""

_LOOK = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """Where the log is."""

    state: Path
    """The embedded broker's folder; unused with ``nats``."""
    nats: BrokerAddress | None = None
    """A broker that runs elsewhere."""
    durable: bool = False
    """Whether the embedded broker syncs before it acknowledges."""
    log_bytes: int | None = None
    """How large the log may become, as in ``BusSettings``."""
    replicas: int | None = None
    """How many copies there are of the log, as in ``BusSettings``."""


@asynccontextmanager
async def open_bus(
    place: Place, name: str, parties: Collection[Party] = ()
) -> AsyncIterator[tuple[Bus, BrokerAddress]]:
    """Connect to the broker of ``place`` as its operator, starting the embedded one where none is named.

    The embedded one knows ``parties`` then, and whoever it knew before; of another one their keys must be at hand.

    :raises BrokerError: the embedded broker cannot be started, or a key is missing
    :raises BusError: the broker cannot be reached
    """
    async with AsyncExitStack() as stack:
        address = place.nats
        if address is None:
            broker = embedded_broker(place.state, parties=parties, ns=NAMESPACE, durable=place.durable)
            address = await stack.enter_async_context(broker)
        for party in parties:
            login_of(address, party, None)
        settings = BusSettings(max_bytes=place.log_bytes, replicas=place.replicas)
        yield await stack.enter_async_context(Bus.connect(address, NAMESPACE, name, settings=settings)), address


@asynccontextmanager
async def open_log(place: Place, name: str) -> AsyncIterator[Bus]:
    """Connect as ``open_bus`` does, or to the broker that another command runs on the state folder just now.

    One that is about to come up, or to go, is waited for. One that goes meanwhile is not: nobody else brings it back.

    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    """
    async with AsyncExitStack() as stack:
        bus = await _reached(place, name, stack)
        if place.nats is None:
            await stack.enter_async_context(_while_it_runs(bus, place.state))
        yield bus


@asynccontextmanager
async def _while_it_runs(bus: Bus, state: Path) -> AsyncIterator[None]:
    """Leave the block with an error once the broker of a state folder has been away for good."""
    async with while_there(bus, _GONE) as scope:
        yield
    if scope.cancelled_caught:
        raise BrokerUnreachable(str(state), "the command that ran it has ended; try again")


@asynccontextmanager
async def while_there(bus: Bus, seconds: float) -> AsyncIterator[anyio.CancelScope]:
    """Leave the block once the broker has been away for so many seconds; then the scope that is yielded says so."""

    async def watch() -> None:
        while True:
            await anyio.sleep(_LOOK)
            with anyio.move_on_after(seconds) as limit:
                await bus.wait_connected()
            if limit.cancelled_caught:
                scope.cancel()
                return

    with anyio.CancelScope() as scope:
        async with beside(watch(), _tell):
            yield scope


def _tell(error: BaseException) -> None:
    _log.error("nobody sees any more whether the broker is there: %s", error)


async def _reached(place: Place, name: str, stack: AsyncExitStack) -> Bus:
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed  # noqa: PLC0415 -- rare

    in_use = retry_if_exception_type(StateFolderInUse)  # by a command whose broker cannot be reached yet, or any more
    attempts = AsyncRetrying(
        retry=in_use, stop=stop_after_delay(_SETTLED), wait=wait_fixed(_LOOK), sleep=anyio.sleep, reraise=True
    )
    return await attempts(_reach, place, name, stack)


async def _reach(place: Place, name: str, stack: AsyncExitStack) -> Bus:
    reached = replace(place, nats=place.nats or running_broker(place.state))
    bus, _ = await stack.enter_async_context(open_bus(reached, name))
    return bus
