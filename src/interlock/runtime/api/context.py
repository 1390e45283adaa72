"""What every request of the HTTP API is answered from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from pydantic import Field

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Name, Strict
from interlock.runtime.api.hub import Hub
from interlock.runtime.api.keys import Keys
from interlock.runtime.bus import Bus
from interlock.runtime.presence import Presence, PublishedTeam

__all__ = ["ApiContext", "ApiSettings", "InContext"]


class ApiSettings(Strict):
    """What can be tuned. The defaults suit one machine."""

    body_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    """The most bytes of a request's body."""
    per_second: float = Field(default=100, gt=0)
    """Requests a second of one key, or of one address where there is none; kills have a rate of their own."""
    burst: int = Field(default=200, ge=1)
    """How many of them may come at once."""
    at_once: int = Field(default=64, ge=1)
    """Requests that are answered at once, those that stream and those that kill left aside."""
    streams: int = Field(default=1000, ge=1)
    """Answers that are streamed at once."""
    heartbeat: float = Field(default=15, gt=0)
    """Seconds after which a stream in which nothing happens says that it is still there."""


@dataclass(frozen=True)
class ApiContext:
    """The parts that a server is made of."""

    bus: Bus
    tracing: Tracing
    hub: Hub
    keys: Keys | None
    """None: anybody may do anything, who asks on the loopback interface."""
    settings: ApiSettings = field(default_factory=ApiSettings)

    async def teams(self) -> Mapping[Name, PublishedTeam]:
        """Return the teams as they were last brought up, by name.

        :raises BusError: the broker is out of reach
        """
        return {one.team.team: one for one in await Presence(self.bus).teams()}


def _context_of(request: Request) -> ApiContext:
    found = request.app.state.context
    if not isinstance(found, ApiContext):
        raise TypeError("an app is made by make_app")
    return found


InContext = Annotated[ApiContext, Depends(_context_of)]
"""The context, as a parameter of a path's function."""
