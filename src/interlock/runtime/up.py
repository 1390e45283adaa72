"""A machine that works for any number of jobs: its processes kept up, its presence told, its end orderly.

What it stands on, broker and open jobs, is in the log. Killed at any point it is begun anew, and the jobs go on.
"""

import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby

import anyio

from interlock._version import __version__
from interlock.agents.tools.secrets import Secrets
from interlock.backends.engines import API_KEY_ENV
from interlock.protocol.base import Role
from interlock.protocol.messages import JOB_TASK, JobClosed, JobRetried, JobSubmitted
from interlock.protocol.subjects import submitted_subjects
from interlock.protocol.team import Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.api.settings import HttpSetup
from interlock.runtime.bus import Bus
from interlock.runtime.config import NO_TOOLKIT, ProcessConfig, Toolkit
from interlock.runtime.killswitch import Guard, NodeGuardian, Stops
from interlock.runtime.model_engines import engines_for
from interlock.runtime.presence import Announcement, Node, Presence, Served
from interlock.runtime.staffing import agent_configs, api_config, manager_config, queues_of
from interlock.runtime.supervisor import Supervisor, supervised
from interlock.runtime.versions import newest_version

__all__ = ["Crew", "Ending", "NodeOrder", "keep_up"]

_log = logging.getLogger(__name__)

_LOOK = 0.2
"""Seconds between two looks at what the processes have in hand."""

_Say = Callable[[str], None]
"""Tells a person one line."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The agents of one team that work on this machine."""

    team: Team
    toolkit: Toolkit = NO_TOOLKIT
    roles: frozenset[Role] | None = None
    """None: all that the team's plan names."""


@dataclass(frozen=True, slots=True)
class NodeOrder:
    """What is to be kept up on this machine."""

    name: str
    """What people call it."""
    patience: float
    """Seconds that the broker waits for an agent that says nothing."""
    crews: tuple[Crew, ...] = ()
    manages: bool = True
    """Whether a manager is among it."""
    leads: bool = True
    """Whether it tells others what its teams are, and tells a person of the jobs."""
    workers: int | None = None
    """Processes of each worker; None: one for each core, shared by a team's workers."""
    guard: Guard = "available"
    drain: float = 30.0
    """Seconds that attempts in hand may take once it is to end."""
    by: str = "operator"
    """The party that this machine is logged in as."""
    http: HttpSetup | None = None
    """Where the HTTP API is served; None: it is not."""


@dataclass(slots=True)
class Ending:
    """A person's wish that the machine ends: first in order, then at once."""

    reason: str = ""
    """Empty as long as nobody wishes it."""
    wished: anyio.Event = field(default_factory=anyio.Event)
    before: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Around what takes long before there is anything to end in order."""
    at_once: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def wish(self, reason: str) -> None:
        """Have it end: in order the first time, at once the second time."""
        if self.reason:
            self.at_once.cancel()
        self.need(reason)

    def need(self, reason: str) -> None:
        """Have it end in order, however often that is said."""
        self.reason = self.reason or reason
        self.before.cancel()
        self.wished.set()


async def keep_up(bus: Bus, address: BrokerAddress, order: NodeOrder, ending: Ending, say: _Say) -> None:
    """Keep up what is ordered until it is to end; then end what is in hand, and all processes.

    ``bus`` is logged in as ``address`` says.

    :raises BusError: the broker cannot be reached, or does not let these credentials
    :raises BrokerError: there are keys of agents, but not of all that are wanted
    :raises ModelError: an engine cannot be started
    """
    with ending.at_once:
        async with AsyncExitStack() as stack:
            await _prepare(stack, bus, order)
            environment: Mapping[str, str] = {}
            with ending.before:
                engines = engines_for([crew.team for crew in order.crews], say, ending.need)
                environment = await stack.enter_async_context(engines)
            if ending.before.cancelled_caught:
                say(f"{ending.reason}: ended before anything was taken in hand")
                return
            configs = _configs(bus.ns, address, order)
            hide = _hider(order.crews, environment)
            guardian = NodeGuardian(bus, {role for config in configs if (role := _role(config))}, order.guard)
            leased = supervised(configs, environment, lease=guardian.seconds, hide=hide, gives_up=False)
            supervisor = await stack.enter_async_context(leased)
            http = await _serve_http(stack, bus.ns, address, order, environment)
            told = await stack.enter_async_context(Presence(bus).announced(_node(order, configs)))
            async with anyio.create_task_group() as group:
                group.start_soon(_obey, guardian, supervisor, say)
                group.start_soon(_tell_load, supervisor, told)
                if http is not None and order.http is not None:
                    group.start_soon(_tell_http, http, order.http.url, say)
                group.start_soon(_tell_ready, supervisor, configs, told.node, say)
                if order.leads:
                    group.start_soon(_tell_jobs, bus, say)
                await ending.wished.wait()
                await _drain(supervisor, told, order, ending, say)
                group.cancel_scope.cancel()
    if ending.at_once.cancelled_caught:
        say("ended at once; what was in hand goes to others, or to the next one on this log")


async def _prepare(stack: AsyncExitStack, bus: Bus, order: NodeOrder) -> None:
    """Make the queues of the teams, where these credentials can, and tell others what the teams are."""
    if order.by != "operator":
        return
    for crew in order.crews:
        await stack.enter_async_context(bus.queues(queues_of(crew.team), ack_wait=order.patience))
        if order.leads:
            await Presence(bus).publish_team(crew.team, crew.toolkit, order.patience)


async def _serve_http(
    stack: AsyncExitStack, ns: str, address: BrokerAddress, order: NodeOrder, environment: Mapping[str, str]
) -> Supervisor | None:
    """Keep the process of the HTTP API running, if there is to be one.

    It has a supervisor of its own, without a lease: it works on nothing that orders could stop, and it is what people
    ask while the broker is away, and while what is in hand is being ended.
    """
    if order.http is None:
        return None
    config = api_config(ns, address, order.http)
    hide = _hider(order.crews, environment)
    hidden = {source.env for crew in order.crews for source in crew.team.secrets.values()} | {API_KEY_ENV}
    own = {name: value for name, value in environment.items() if name not in hidden}
    return await stack.enter_async_context(supervised([config], own, hide=hide, gives_up=False))


async def _tell_http(http: Supervisor, url: str, say: _Say) -> None:
    """Say once where the HTTP API is."""
    while not http.ready:  # noqa: ASYNC110 -- looking now and then is enough for a person
        await anyio.sleep(_LOOK)
    say(f"the HTTP API is at {url}, described by {url}/openapi.json")


def _configs(ns: str, address: BrokerAddress, order: NodeOrder) -> list[ProcessConfig]:
    lane = None if address.keys is None else 0
    configs = [manager_config(ns, address, lane=lane)] if order.manages else []
    for crew in order.crews:
        configs += agent_configs(
            crew.team, ns, address, workers=order.workers, toolkit=crew.toolkit, lane=lane, roles=crew.roles
        )
    return [config.model_copy(update={"patience": order.patience}) for config in configs]


def _role(config: ProcessConfig) -> Role | None:
    return None if config.agent_name is None else f"{config.agent_name}@{config.team}"


def _node(order: NodeOrder, configs: Sequence[ProcessConfig]) -> Node:
    served: list[Served] = []
    for role, of_role in groupby(configs, lambda config: _role(config) or "manager"):
        group = list(of_role)
        kind = group[0].kind
        if kind == "api":  # it works on nothing that others could count on
            continue
        slots = sum(config.slots for config in group) if kind != "manager" else 0
        served.append(Served(role=role, kind=kind, processes=len(group), slots=slots))
    now = datetime.now(UTC)
    return Node(
        id=f"{re.sub(r'[^A-Za-z0-9_-]', '-', order.name)[:50]}-{secrets.token_hex(4)}",
        by=order.by,
        name=order.name,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        protocol=newest_version(),
        serves=tuple(served),
        began=now,
        seen=now,
    )


async def _obey(guardian: NodeGuardian, supervisor: Supervisor, say: _Say) -> None:
    """Hold what orders stop, let go of jobs that they kill, and hold everything while orders cannot be heard."""
    before, deaf = Stops(), False

    def looked(stops: Stops, until: float) -> None:
        nonlocal before, deaf
        supervisor.renew(until)
        supervisor.hold(stops.roles)
        supervisor.kill_jobs(stops.jobs)
        if deaf:
            say("orders can be heard again: all goes on that they do not stop")
        for role in sorted(stops.roles - before.roles):
            say(f"{role} is killed, its processes are ended until it is resumed")
        for role in sorted(before.roles - stops.roles):
            say(f"{role} is resumed")
        before, deaf = stops, False

    def lost() -> None:
        nonlocal deaf
        deaf = True
        supervisor.hold(None)
        say(f"stopped by itself: for {guardian.seconds:g} s it could not be known whether anything was killed")

    await guardian.watch(looked, lost)


async def _drain(supervisor: Supervisor, told: Announcement, order: NodeOrder, ending: Ending, say: _Say) -> None:
    told.tell(told.node.model_copy(update={"draining": True}))
    say(
        f"{ending.reason}: taking nothing more; up to {order.drain:g} s for the {_attempts(supervisor.in_hand)} in hand"
    )
    supervisor.drain()
    with anyio.move_on_after(order.drain) as limit:
        await supervisor.drained()
    left = supervisor.in_hand
    over = limit.cancelled_caught and left
    say(f"not done in time: {_attempts(left)}; they go to others" if over else "ended: nothing is left in hand")


def _attempts(number: int) -> str:
    return f"{number} attempt{'' if number == 1 else 's'}"


async def _tell_load(supervisor: Supervisor, told: Announcement) -> None:
    while True:
        told.tell(told.node.model_copy(update={"in_hand": supervisor.in_hand}))
        await anyio.sleep(_LOOK)


async def _tell_ready(supervisor: Supervisor, configs: Sequence[ProcessConfig], node: Node, say: _Say) -> None:
    """Say once that every process is ready, and what they are."""
    wanted = {config.name for config in configs}
    while not wanted <= supervisor.ready:  # noqa: ASYNC110 -- looking now and then is enough for a person
        await anyio.sleep(_LOOK)
    for served in node.serves:
        room = f", {served.slots} at once" if served.slots else ""
        say(f"{served.role} is up: {served.processes} process{'' if served.processes == 1 else 'es'}{room}")
    say(f"node {node.name} is up")


async def _tell_jobs(bus: Bus, say: _Say) -> None:
    """Say which jobs are open, and then of each job that it began and how it ended."""
    submitted = submitted_subjects(bus.ns)
    own = submitted.removesuffix(f"{JOB_TASK}.submitted") + JOB_TASK
    began: dict[str, datetime] = {}
    caught_up = False
    async with bus.follow([submitted, f"{own}.closed", f"{own}.retried"]) as batches:
        async for batch in batches:
            for entry in batch.entries:
                line = _job_line(entry.message, began)
                if caught_up and line:
                    say(line)
            if not caught_up and batch.pending == 0:
                caught_up = True
                for job in began:
                    say(f"job {job} is open and goes on")


def _job_line(message: object, began: dict[str, datetime]) -> str:
    """Take note of a job's beginning or end, and return the line that tells of it."""
    match message:
        case JobSubmitted():
            began[message.job] = message.at
            return f"job {message.job} of {message.team.team} began: {message.goal}"
        case JobRetried():
            began[message.job] = message.at
            return f"job {message.job} goes on: {len(message.tasks)} tasks were put back"
        case JobClosed():
            since = began.pop(message.job, message.at)
            reason = f": {message.reason}" if message.reason else ""
            return f"job {message.job} {message.status} after {(message.at - since).total_seconds():.1f} s{reason}"
        case _:
            return ""


def _hider(crews: Iterable[Crew], environment: Mapping[str, str]) -> Callable[[str], str]:
    scrubs = [Secrets.from_environment(crew.team.secrets, environment).scrub for crew in crews]

    def hide(text: str) -> str:
        for scrub in scrubs:
            text = scrub(text)
        return text

    return hide
