"""What an agent process is told when it starts: JSON on its standard input, so that no secret stands in argv."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict, Field

from interlock.agents.children import Home
from interlock.protocol.base import Name, Strict
from interlock.protocol.team import Agent, ModelSettings, SecretSource, ToolSources
from interlock.protocol.tools import ToolSpec
from interlock.runtime.address import BrokerAddress
from interlock.runtime.api.settings import HttpSetup

__all__ = ["ACK_WAIT", "LAST_WORD", "NO_TOOLKIT", "BrokerLogin", "ProcessConfig", "ToolSetup", "Toolkit"]

ACK_WAIT = 5.0
"""Seconds that the broker waits for a holder who says nothing, where nothing else is asked for."""

LAST_WORD = "over"
"""The line with which a process says that its work is over and its connections are closed."""


_SECRETIVE = ConfigDict(hide_input_in_errors=True)
"""Besides what ``Strict`` asks for: a configuration that does not fit is not repeated in the log."""


class BrokerLogin(Strict):
    """Where the broker is and how to log in to it."""

    model_config = _SECRETIVE

    url: str
    user: str | None = None
    password: str | None = Field(default=None, repr=False)
    token: str | None = Field(default=None, repr=False)
    seed: str | None = Field(default=None, repr=False)
    ca: str | None = None
    lane: int | None = None

    @classmethod
    def of(cls, address: BrokerAddress) -> "BrokerLogin":
        """Return the login for ``address``, without the way to the keys of others."""
        return cls(
            url=address.url,
            user=address.user,
            password=address.password,
            token=address.token,
            seed=address.seed,
            ca=address.ca,
            lane=address.lane,
        )

    def address(self) -> BrokerAddress:
        """Return the address that this is the login for."""
        return BrokerAddress(**self.model_dump())


@dataclass(frozen=True, slots=True)
class Toolkit:
    """The tools of a team, as they are when a job is submitted."""

    catalogue: tuple[ToolSpec, ...] = ()
    base: str = "/"
    """The folder of the team file, absolute."""
    inner: Mapping[str, "Toolkit"] = field(default_factory=dict[str, "Toolkit"])
    """Those of the teams within it, at any depth, by name."""

    @property
    def home(self) -> Home:
        """The team's own part of it."""
        return Home(tools=self.catalogue, base=self.base)

    def of(self, team: str) -> "Toolkit":
        """Return that of a team within it, and of what is within that."""
        found = self.inner.get(team, NO_TOOLKIT)
        return Toolkit(found.catalogue, found.base, self.inner)


NO_TOOLKIT = Toolkit()
"""That of a team without tools."""


class ToolSetup(Strict):
    """What a worker process needs to open its agent's tools."""

    sources: ToolSources
    secrets: dict[str, SecretSource]
    catalogue: tuple[ToolSpec, ...]
    """What each of them has to be: as it was when the job was submitted."""
    base: str
    """The folder of the team file, absolute."""


class ProcessConfig(Strict):
    """One manager, worker, verifier or team process, or the one of the HTTP API."""

    model_config = _SECRETIVE

    kind: Literal["manager", "worker", "verifier", "team", "api"]
    name: str
    """What the process is called in logs: ``manager``, or the agent's name and a number."""
    ns: Name
    broker: BrokerLogin
    job: str | None = None
    """The only job to work on; None: all of them."""
    tree: bool = False
    """Whether it works on the jobs within ``job``: a manager on that one too, others on these alone."""
    team: Name | None = None
    """Only for a worker or a verifier, as the fields below."""
    agent_name: Name | None = None
    agent: Agent | None = None
    model: ModelSettings | None = None
    """The agent's model; where its server and key are, the environment says. None: it needs no model."""
    tools: ToolSetup | None = None
    """Only for a worker; None: it has none."""
    home: Home = Home()
    """Only for a team: the tools of the team that the agent is."""
    http: HttpSetup | None = None
    """Only for the HTTP API."""
    patience: float = Field(default=ACK_WAIT, gt=0)
    """Seconds after which a message that its holder says nothing of goes to another process."""
    slots: int = Field(default=1, ge=1)
    """How many messages the process works on at once."""
