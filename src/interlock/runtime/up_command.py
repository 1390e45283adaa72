"""What `interlock up`, `worker` and `nodes` do: keep machines up that work for any number of jobs, and list them."""

import argparse
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import anyio

from interlock.agents.children import teams_of
from interlock.protocol.base import Role
from interlock.protocol.team import Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.api_command import http_setup
from interlock.runtime.bus import Bus
from interlock.runtime.commands import model_problem, place_of, toolkit_of
from interlock.runtime.config import ACK_WAIT
from interlock.runtime.credentials import Party, parties_of
from interlock.runtime.failures import Mistake
from interlock.runtime.killswitch import GUARDS, Guard
from interlock.runtime.place import Place, open_bus, open_log
from interlock.runtime.presence import Node, Presence, PublishedTeam
from interlock.runtime.show import one_line, print_out, reader_may_leave
from interlock.runtime.staffing import roles_of, tool_names
from interlock.runtime.teamfile import load_team
from interlock.runtime.up import Crew, Ending, NodeOrder, keep_up

__all__ = ["COMMANDS", "BrokerNotNamed", "RoleUnknown", "TeamNotUp", "TeamTwice", "ToolFilesMissing"]

_HEADWAY = 4.0
"""Seconds by which agents that are cut off end before the broker gives their work to others."""

_KILLED = 4


class BrokerNotNamed(Mistake):
    """A worker was not told which broker it is to work for."""

    def __init__(self) -> None:
        super().__init__("name the broker to work for: --nats URL; `interlock up` says which one it is at")


class TeamTwice(Mistake):
    """Two team files have the same name of a team."""

    def __init__(self, team: str) -> None:
        self.team = team
        super().__init__(f"two of the team files define the team {team}: a name stands for one team")


class TeamNotUp(Mistake):
    """There is no definition of what is to be served."""

    def __init__(self, team: str, known: Sequence[str]) -> None:
        self.team = team
        listed = f"those that were are {', '.join(known)}" if known else "no team was"
        wanted = f"team {team}" if team else "a team"
        super().__init__(f"{wanted} must be brought up at this broker first ({listed}), or name its TEAM.yaml")


class RoleUnknown(Mistake):
    """A role that no team has which is to be served."""

    def __init__(self, role: str, known: Sequence[str]) -> None:
        self.role = role
        super().__init__(f"no plan names {role!r}; the roles are {', '.join(['manager', *known])}")


class ToolFilesMissing(Mistake):
    """The files that a team's tools are in are not on this machine."""

    def __init__(self, team: str, path: Path) -> None:
        self.team = team
        self.path = path
        super().__init__(
            f"team {team} has tools in {path}, which is not on this machine: put the team's folder there, or name its "
            "TEAM.yaml where it is here"
        )


def _up(options: argparse.Namespace) -> int:
    """Keep teams up until told to end.

    :raises TeamTwice: two files define one team
    :raises ModelError: a model cannot be reached
    :raises Mistake: the HTTP API cannot be served as wanted, see ``http_setup``
    """
    crews = _crews(options.teams)
    place = place_of(options)
    patience = ACK_WAIT if place.nats is None else _patience(options.guard)
    order = NodeOrder(
        name=options.name or socket.gethostname(),
        patience=patience,
        crews=crews,
        workers=options.workers,
        guard=options.guard,
        drain=options.drain,
        http=http_setup(options),
    )
    anyio.run(_keep_up, place, order, backend_options={"use_uvloop": True})
    return 0


def _worker(options: argparse.Namespace) -> int:
    """Work for teams that are up elsewhere, until told to end.

    :raises BrokerNotNamed: there is no ``--nats``
    :raises TeamTwice: two files define one team
    :raises TeamNotUp: nobody brought up what is to be served, and no file says what it is
    :raises RoleUnknown: no team has such a role
    :raises ToolFilesMissing: a team's tools are not here
    :raises ModelError: a model cannot be reached
    """
    place = place_of(options)
    if place.nats is None:
        raise BrokerNotNamed
    anyio.run(_work, place, place.nats, options, _crews(options.teams), backend_options={"use_uvloop": True})
    return 0


def _nodes(options: argparse.Namespace) -> int:
    """List the machines that are there."""
    place = place_of(options)
    found = anyio.run(_read_nodes, place) if place.nats is not None or place.state.exists() else []
    if options.json:
        print_out(json.dumps([node.model_dump(mode="json") for node in found], indent=2))
    else:
        _print_nodes(found, datetime.now(UTC))
    return 0


def _crews(paths: Sequence[Path]) -> tuple[Crew, ...]:
    """Return the whole crews of the teams in these files and of the teams within them.

    Before that it is seen that their models can be reached.
    """
    crews: dict[str, Crew] = {}
    inner: list[Crew] = []
    for path in paths:
        loaded = load_team(path)
        if loaded.team.team in crews:
            raise TeamTwice(loaded.team.team)
        toolkit = toolkit_of(loaded)
        crews[loaded.team.team] = Crew(loaded.team, toolkit)
        inner += (Crew(one, toolkit.of(one.team)) for one in teams_of(loaded.team)[1:])
    for crew in inner:
        if crews.setdefault(crew.team.team, crew).team != crew.team:
            raise TeamTwice(crew.team.team)
    _check_models(crew.team for crew in crews.values())
    return tuple(crews.values())


def _check_models(teams: Iterable[Team]) -> None:
    for team in teams:
        if (problem := model_problem(team)) is not None:
            raise problem


async def _keep_up(place: Place, order: NodeOrder) -> None:
    ending = Ending()
    async with anyio.create_task_group() as group:
        group.start_soon(_wish_on_signal, ending)
        async with open_bus(place, f"up {order.name}", parties_of(crew.team for crew in order.crews)) as (bus, address):
            _say_where(place, address)
            await keep_up(bus, address, order, ending, _say)
        group.cancel_scope.cancel()


async def _work(place: Place, address: BrokerAddress, options: argparse.Namespace, crews: tuple[Crew, ...]) -> None:
    ending, party = Ending(), _party(options)
    async with anyio.create_task_group() as group:
        group.start_soon(_wish_on_signal, ending)
        async with open_bus(place, f"worker {options.name or socket.gethostname()}") as (bus, _):
            order = await _ordered(bus, options, crews, party)
            _say(f"working for {address.url} as {party.name}")
            await keep_up(bus, address, order, ending, _say)
        group.cancel_scope.cancel()


def _party(options: argparse.Namespace) -> Party:
    """Return who the machine logs in as: an operator, unless one key of another party is named."""
    path = options.nats_keys
    party = None if path is None or Path(path).is_dir() else Party.named(Path(path).stem)
    return party or Party("operator")


async def _ordered(bus: Bus, options: argparse.Namespace, crews: tuple[Crew, ...], party: Party) -> NodeOrder:
    """Return what a worker is to keep up: the roles that are asked for, or all that it can."""
    published = {one.team.team: one for one in await Presence(bus).teams()}
    wanted: list[Role] = options.role or ([] if party.kind == "operator" else [party.role or party.kind])
    serving = crews or _published_crews(published, wanted)
    chosen = tuple(crew for crew in (_chosen(crew, wanted) for crew in serving) if crew is not None)
    known = [role for crew in serving for role in roles_of(crew.team)]
    for role in wanted:
        if role != "manager" and role not in known:
            raise RoleUnknown(role, known)
    for crew in chosen:
        if not crews:
            _check_tool_files(crew)
    patience = min((published[c.team.team].patience for c in chosen if c.team.team in published), default=0.0)
    patience = patience or _patience(options.guard)
    return NodeOrder(
        name=options.name or socket.gethostname(),
        patience=patience,
        crews=chosen,
        manages="manager" in wanted,
        leads=False,
        workers=options.workers,
        guard=_guard(options.guard, patience),
        drain=options.drain,
        by=party.name,
    )


def _published_crews(published: dict[str, PublishedTeam], wanted: Sequence[Role]) -> tuple[Crew, ...]:
    """Return the crews of the teams as they were last brought up: all, or those that the wanted roles are of.

    :raises TeamNotUp: there is none, or not one of these
    """
    names = {role.partition("@")[2]: None for role in wanted if "@" in role} if wanted else dict.fromkeys(published)
    for name in names:
        if name not in published:
            raise TeamNotUp(name, sorted(published))
    if not names and "manager" not in wanted:
        raise TeamNotUp("", ())
    crews = tuple(Crew(published[name].team, published[name].toolkit) for name in names)
    _check_models(crew.team for crew in crews)
    return crews


def _chosen(crew: Crew, wanted: Sequence[Role]) -> Crew | None:
    """Return the part of a crew that is wanted; None where nothing of it is."""
    roles = frozenset(role for role in roles_of(crew.team) if not wanted or role in wanted)
    return replace(crew, roles=roles) if roles else None


def _check_tool_files(crew: Crew) -> None:
    """Look whether the files are here that a team's tools are in, as far as its workers here have any.

    :raises ToolFilesMissing: one is not
    """
    agents = {role.partition("@")[0] for role in crew.roles or roles_of(crew.team)}
    if not any(tool_names(crew.team, agent) for agent in agents):
        return
    for module in crew.team.tools.modules:
        path = Path(crew.toolkit.base) / module
        if not path.exists():
            raise ToolFilesMissing(crew.team.team, path)


def _patience(guard: Guard) -> float:
    """Return how long the broker waits: long enough that agents who are cut off from it have ended by themselves."""
    return max(ACK_WAIT, GUARDS[guard] + _HEADWAY)


def _guard(wanted: Guard, patience: float) -> Guard:
    """Return the guard under which agents that are cut off end before the queues hand on what they had."""
    if _patience(wanted) <= patience:
        return wanted
    _say(f"the queues hand work on after {patience:g} s: agents here end 1 s after they are cut off (--guard strict)")
    return "strict"


async def _read_nodes(place: Place) -> list[Node]:
    async with open_log(place, "client") as bus:
        return await Presence(bus).nodes()


async def _wish_on_signal(ending: Ending) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        told = 0
        async for number in signals:
            told += 1
            if told > 2:  # noqa: PLR2004 -- the third time nothing is waited for: every child dies with this process
                _leave_at_once()
            ending.wish(signal.Signals(number).name)


def _leave_at_once() -> NoReturn:
    os._exit(_KILLED)


def _say_where(place: Place, address: BrokerAddress) -> None:
    keys = f" --nats-keys {address.keys}" if address.keys else ""
    _say(f"the broker is at {address.url}; others join with `interlock worker --nats {address.url}{keys}`")
    if place.nats is None:
        _say(f"the log is in {place.state.absolute()}")


def _say(text: str) -> None:
    """Print a line, with the time, on standard error."""
    with reader_may_leave(sys.stderr):
        sys.stderr.write(f"{datetime.now().astimezone():%H:%M:%S} {one_line(text)}\n")
        sys.stderr.flush()


def _print_nodes(nodes: Sequence[Node], now: datetime) -> None:
    if not nodes:
        sys.stderr.write("no machine is up\n")
        return
    rows = [("NODE", "VERSION", "IN HAND", "STATE", "SEEN", "SERVES"), *(_row(node, now) for node in nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
        print_out(one_line("  ".join(cells)).rstrip())


def _row(node: Node, now: datetime) -> tuple[str, ...]:
    served = (
        one.role if one.kind == "manager" else f"{one.role} {one.processes}x{one.slots // max(1, one.processes)}"
        for one in node.serves
    )
    seen = f"{max(0.0, (now - node.seen).total_seconds()):.0f} s ago"
    state = "draining" if node.draining else "up"
    return (node.name, node.version, str(node.in_hand), state, seen, ", ".join(served) or "nothing")


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"up": _up, "worker": _worker, "nodes": _nodes}
"""What does each command."""
