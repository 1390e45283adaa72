"""Who is there: the machines that work for a namespace, what they serve, and the teams as they were last brought up.

Presence decides nothing. It is for people who look, and for machines that join without a team's file.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Literal

import anyio
from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from interlock.agents.children import Home
from interlock.protocol.base import Name, Strict
from interlock.protocol.team import Team
from interlock.protocol.tools import ToolSpec
from interlock.runtime._background import beside
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError
from interlock.runtime.config import ACK_WAIT, NO_TOOLKIT, Toolkit

__all__ = ["PRESENCE_SECONDS", "Announcement", "Node", "Presence", "PublishedTeam", "Served"]

_log = logging.getLogger(__name__)

PRESENCE_SECONDS = 4.0
"""How long a machine that says nothing more is still taken to be there."""

_BEAT = 1.0
_LEAVE_SECONDS = 1.0
_LENIENT = ConfigDict(extra="ignore")
"""What a newer version tells besides is left out: versions N and N-1 stand side by side."""


class Served(Strict):
    """What a machine serves of one role."""

    model_config = _LENIENT

    role: str
    """``agent@team``, or ``manager``."""
    kind: Literal["manager", "worker", "verifier", "team"]
    processes: int = Field(ge=0)
    slots: int = Field(ge=0)
    """How many messages they work on at once, all together; 0 for a manager."""


class Node(Strict):
    """A machine, or one of several commands on it, that works for a namespace."""

    model_config = _LENIENT

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    by: str = "operator"
    """The party that it logged in as, which the broker holds it to."""
    name: str
    """What people call it."""
    host: str
    pid: int
    version: str
    """Of Interlock."""
    protocol: int
    """The newest version of messages that it reads and writes."""
    serves: tuple[Served, ...] = ()
    draining: bool = False
    """Whether it takes nothing more and ends what it has in hand."""
    in_hand: int = Field(default=0, ge=0)
    """How many messages its processes work on right now."""
    began: AwareDatetime
    seen: AwareDatetime
    """When it last told of itself, by its own clock."""


class PublishedTeam(Strict):
    """A team as it was last brought up."""

    team: Team
    catalogue: tuple[ToolSpec, ...] = ()
    """The tools that its plan uses, as they were then."""
    base: str = "/"
    """The folder of the team file, absolute, on the machine that brought it up."""
    inner: dict[Name, Home] = Field(default_factory=dict[Name, Home])
    """The tools of the teams within it, at any depth."""
    patience: float = ACK_WAIT
    """Seconds after which its queues hand on a message whose holder says nothing."""
    at: AwareDatetime

    @property
    def toolkit(self) -> Toolkit:
        """Its tools, in the form that configurations of processes are made of."""
        inner = {name: Toolkit(home.tools, home.base) for name, home in self.inner.items()}
        return Toolkit(self.catalogue, self.base, inner)


class Announcement:
    """What a machine tells of itself, as long as it does."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._changed = anyio.Event()

    def tell(self, node: Node) -> None:
        """Tell this from now on, and at once; the id must be the same."""
        if node != self.node:
            self.node = node
            self._changed.set()

    async def until_due(self) -> None:
        """Wait until it is time to tell it, or there is news."""
        with anyio.move_on_after(_BEAT):
            await self._changed.wait()
        self._changed = anyio.Event()


class Presence:
    """Who is there in the namespace of a bus."""

    def __init__(self, bus: Bus) -> None:
        self._state = bus.state

    async def nodes(self) -> list[Node]:
        """Return the machines that are there, by name and then id. What nobody can read is logged and left out.

        :raises BusError: the broker is out of reach, or lets these credentials read nothing
        """
        found: list[Node] = []
        for key, value in (await self._state.values("node")).items():
            try:
                found.append(Node.model_validate_json(value.body))
            except ValidationError as error:
                _log.warning("what node %s tells of itself cannot be read: %s", key, error)
        return sorted(found, key=lambda node: (node.name, node.id))

    async def rooms(self) -> Mapping[str, int]:
        """Return how many tasks the workers of each team can have in hand at once, all those together that are there.

        Machines that drain do not count. A team without any is left out.

        :raises BusError: the broker is out of reach, or lets these credentials read nothing
        """
        found: dict[str, int] = {}
        for node in await self.nodes():
            for served in node.serves if not node.draining else ():
                if served.kind == "worker" and served.slots:
                    team = served.role.rpartition("@")[2]
                    found[team] = found.get(team, 0) + served.slots
        return found

    @asynccontextmanager
    async def announced(self, node: Node) -> AsyncIterator[Announcement]:
        """Tell of a machine while the block runs, and that it has gone when it is left.

        Where the broker is away it is told again once it is back.

        :raises BusError: it could not be told the first time
        """
        key, announcement = f"node.{node.by}.{node.id}", Announcement(node)
        await self._tell(key, announcement)
        try:
            async with beside(self._go_on(key, announcement), _complain):
                yield announcement
        finally:
            with anyio.move_on_after(_LEAVE_SECONDS, shield=True), suppress(BusError):  # then it is forgotten in time
                await self._state.put(key, b"", seconds=1)

    async def teams(self) -> list[PublishedTeam]:
        """Return the teams as they were last brought up, by name. What nobody can read is logged and left out.

        :raises BusError: the broker is out of reach, or lets these credentials read nothing
        """
        found: list[PublishedTeam] = []
        for name, value in (await self._state.values("team")).items():
            try:
                found.append(PublishedTeam.model_validate_json(value.body))
            except ValidationError as error:
                _log.warning("team %s was brought up by a version that cannot be read here: %s", name, error)
        return found

    async def team(self, name: Name) -> PublishedTeam | None:
        """Return a team as it was last brought up; None where it never was, or cannot be read.

        :raises BusError: the broker is out of reach, or lets these credentials read nothing
        """
        return next((one for one in await self.teams() if one.team.team == name), None)

    async def publish_team(self, team: Team, toolkit: Toolkit = NO_TOOLKIT, patience: float = ACK_WAIT) -> None:
        """Tell what a team is, in the place of what it was before.

        :raises BusError: the broker is out of reach, or does not let these credentials
        """
        published = PublishedTeam(
            team=team,
            catalogue=toolkit.catalogue,
            base=toolkit.base,
            inner={name: one.home for name, one in toolkit.inner.items()},
            patience=patience,
            at=datetime.now(UTC),
        )
        await self._state.put(f"team.{team.team}", published.model_dump_json(exclude_defaults=True).encode())

    async def _go_on(self, key: str, announcement: Announcement) -> None:
        while True:
            await announcement.until_due()
            try:
                await self._tell(key, announcement)
            except BusError as error:
                _log.info("the broker cannot be told that this machine is there: %s", error)

    async def _tell(self, key: str, announcement: Announcement) -> None:
        told = announcement.node.model_copy(update={"seen": datetime.now(UTC)})
        await self._state.put(key, told.model_dump_json().encode(), seconds=PRESENCE_SECONDS)


def _complain(error: BaseException) -> None:
    _log.error("this machine is not told of any more: %s: %s", type(error).__name__, error)
