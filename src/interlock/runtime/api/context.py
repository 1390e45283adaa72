"""What every request of the HTTP API is answered from."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Name
from interlock.runtime.api.hub import Hub
from interlock.runtime.api.index import JobIndex
from interlock.runtime.api.keys import Keys
from interlock.runtime.api.reports import Reports
from interlock.runtime.api.roster import Roster, There
from interlock.runtime.api.settings import ApiSettings
from interlock.runtime.bus import Bus
from interlock.runtime.presence import PublishedTeam

__all__ = ["ApiContext", "InContext", "open_context"]


@dataclass(frozen=True)
class ApiContext:
    """The parts that a server is made of. Use ``open_context``."""

    bus: Bus
    tracing: Tracing
    keys: Keys | None
    """None: anybody may do anything, who asks on the loopback interface."""
    settings: ApiSettings
    hub: Hub
    jobs: JobIndex
    reports: Reports
    roster: Roster

    async def teams(self) -> Mapping[Name, PublishedTeam]:
        """Return the teams as they were last brought up, by name.

        :raises BusError: the broker is out of reach
        """
        return await self.roster.teams()

    async def there(self) -> There:
        """Return who is there, also where the broker does not answer."""
        return await self.roster.there()


_NO_SETTINGS = ApiSettings()


@asynccontextmanager
async def open_context(
    bus: Bus, tracing: Tracing, keys: Keys | None, settings: ApiSettings = _NO_SETTINGS
) -> AsyncIterator[ApiContext]:
    """Keep what requests are answered from, while the block runs."""
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub.open(bus))
        jobs = await stack.enter_async_context(JobIndex.open(bus))
        reports = stack.enter_context(Reports.open(bus))
        yield ApiContext(bus, tracing, keys, settings, hub, jobs, reports, Roster(bus))


def _context_of(request: Request) -> ApiContext:
    found = request.app.state.context
    if not isinstance(found, ApiContext):
        raise TypeError("an app is made by make_app")
    return found


InContext = Annotated[ApiContext, Depends(_context_of)]
"""The context, as a parameter of a path's function."""
