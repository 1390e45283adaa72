"""What `interlock submit` and `watch` do: give a job to a team that is up elsewhere, and see how it goes."""

import argparse
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio

from interlock.observability.tracing import Tracing
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.state import JobState
from interlock.protocol.subjects import submitted_subject
from interlock.protocol.team import Agent, Team
from interlock.runtime.broker import running_broker
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound, new_job_id, read_job, submit, watch
from interlock.runtime.commands import budget_of, place_of, tell, toolkit_of
from interlock.runtime.config import Toolkit
from interlock.runtime.failures import Mistake
from interlock.runtime.killswitch import Guardian
from interlock.runtime.place import Place, open_log
from interlock.runtime.presence import Presence, PublishedTeam
from interlock.runtime.show import one_line, print_out
from interlock.runtime.sources import FrozenJob, StoredJob, freeze, parse_inputs, store
from interlock.runtime.teamfile import load_team
from interlock.runtime.view import open_view

__all__ = ["COMMANDS", "JobDiffers", "NobodyUp"]

_FLUSH = 0.4
"""Seconds that the last spans have to leave."""

_INTERRUPTED = 130
"""What a shell says of a command that was ended by Ctrl-C: nothing is known of the job's end."""


class NobodyUp(Mistake):
    """A job is to be watched that nobody works on."""

    def __init__(self, state: Path) -> None:
        self.state = state
        super().__init__(
            f"nothing is up on {state} that could do the job: start `interlock up TEAM.yaml` there first, or leave out "
            "--watch; a job that was submitted is done once it is up"
        )


class JobDiffers(Mistake):
    """An id is submitted again for another job."""

    def __init__(self, job: str, part: str) -> None:
        self.job = job
        self.part = part
        """What is different."""
        super().__init__(f"job {job} was submitted before with {part}: an id is one job for ever, choose another one")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The job that a person describes."""

    frozen: FrozenJob
    goal: str
    toolkit: Toolkit
    options: argparse.Namespace

    @property
    def team(self) -> Team:
        """The team that is to do it."""
        return self.frozen.team


def _submit(options: argparse.Namespace) -> int:
    """Submit a job and print its id, or with ``--watch`` what became of it.

    :raises NobodyUp: it is to be watched and nobody is there to do it
    :raises JobDiffers: there is another job of this id
    :raises JobKilled: a standing order forbids it
    """
    place, loaded = place_of(options), load_team(options.team)
    frozen = freeze(loaded, parse_inputs(options.input), Path.cwd())
    wanted = _Wanted(frozen, options.goal or loaded.team.description, toolkit_of(loaded), options)
    if options.watch and not _is_up(place):
        raise NobodyUp(place.state)
    tracing = Tracing.from_environment("interlock-client")
    try:
        job = anyio.run(_submit_one, place, wanted, tracing)
    finally:
        tracing.shutdown(_FLUSH)
    if not options.watch:
        print_out(f'{{"job_id": "{job}"}}' if options.json else job)
        return 0
    return _watch_to_the_end(options, place, job)


def _watch(options: argparse.Namespace) -> int:
    """Watch a job to its end and print what became of it.

    :raises JobNotFound: there is no such job
    :raises NobodyUp: it is open and nobody is there to do it
    """
    place = place_of(options)
    if place.nats is None and not place.state.exists():
        raise JobNotFound(options.job, ())
    if not _is_up(place):
        state = anyio.run(_read, place, options.job)
        if state.closed is None:
            raise NobodyUp(place.state)
        return tell(options, state)
    return _watch_to_the_end(options, place, options.job)


def _watch_to_the_end(options: argparse.Namespace, place: Place, job: str) -> int:
    try:
        state = anyio.run(_watched, place, job, backend_options={"use_uvloop": True})
    except KeyboardInterrupt:
        _note(f"not watched any more, job {job} goes on; `interlock watch {job}` watches it again")
        return _INTERRUPTED
    return tell(options, state)


def _is_up(place: Place) -> bool:
    """Whether somebody may be there who works on the log's jobs."""
    return place.nats is not None or running_broker(place.state) is not None


async def _submit_one(place: Place, wanted: _Wanted, tracing: Tracing) -> str:
    job = wanted.options.id or new_job_id(wanted.team.team)
    async with open_log(place, "client") as bus:
        await Guardian(bus, team=wanted.team.team, job=job).check()
        given, is_new = await store(wanted.frozen, bus), False
        with anyio.CancelScope(shield=True):  # there is a job or there is none
            is_new = await submit(
                bus,
                tracing,
                given.team,
                wanted.goal,
                given.inputs,
                job,
                autonomy=wanted.options.autonomy,
                budget=budget_of(wanted.options.budget),
                toolkit=wanted.toolkit,
                items=given.items,
                stored=given.stored,
                priority=wanted.options.priority,
                approve_plan=wanted.options.approve_plan,
            )
        if not is_new:
            await _check_same(bus, job, given, wanted.goal)
            _note(f"job {job} was submitted before, it is the same job")
        for note in await _notes(bus, wanted.team):
            _note(note)
    return job


async def _check_same(bus: Bus, job: str, given: StoredJob, goal: str) -> None:
    """Look whether the job of an id that was submitted before is the one that is wanted now.

    :raises JobDiffers: it is another one
    """
    entry = await bus.last(submitted_subject(bus.ns, job))
    before = entry.message if entry else None
    if not isinstance(before, JobSubmitted):
        return
    parts = {
        "another goal": before.goal == goal,
        "another team": before.team == given.team,
        "other inputs": (before.inputs, before.items, before.stored) == (given.inputs, given.items, given.stored),
    }
    for part, same in parts.items():
        if not same:
            raise JobDiffers(job, part)


async def _notes(bus: Bus, team: Team) -> list[str]:
    """Return what a person should know of who is there to do a job of ``team``."""
    presence = Presence(bus)
    nodes = [node for node in await presence.nodes() if not node.draining]
    roles = {served.role for node in nodes for served in node.serves}
    notes = [] if "manager" in roles else ["no manager is up now: the job begins once `interlock up` runs"]
    published = await presence.team(team.team)
    if not any(role.endswith(f"@{team.team}") for role in roles):
        return [*notes, f"no agent of team {team.team} is up now: its tasks wait for `interlock up` with its TEAM.yaml"]
    return [*notes, *_differences(team, published)]


def _differences(team: Team, published: PublishedTeam | None) -> list[str]:
    """Return what differs between a team and what is up of it, where that matters to its agents."""
    if published is None:
        return []
    up = published.team
    differing = [
        what
        for what, same in {
            "agents": _bare(up) == _bare(team),
            "model": up.model == team.model,
            "tools": up.tools == team.tools,
        }.items()
        if not same
    ]
    if not differing:
        return []
    return [f"team {team.team} is up with other {' and '.join(differing)} than in this file: bring it up anew"]


def _bare(team: Team) -> dict[str, Agent]:
    """Return the agents without the teams that they are, which a job holds with the content of their files."""
    return {name: agent.model_copy(update={"team": None}) for name, agent in team.agents.items()}


async def _read(place: Place, job: str) -> JobState:
    async with open_log(place, "client") as bus:
        return await read_job(bus, job)


async def _watched(place: Place, job: str) -> JobState:
    state = JobState()
    async with open_log(place, "client") as bus:
        if await bus.last(submitted_subject(bus.ns, job)) is None:
            raise JobNotFound(job, await bus.jobs())
        with open_view() as view:
            async with aclosing(watch(bus, job)) as news:
                async for progress in news:
                    view.show(progress)
                    state = progress.state
    return state


def _note(text: str) -> None:
    sys.stderr.write(f"interlock: {one_line(text)}\n")
    sys.stderr.flush()


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"submit": _submit, "watch": _watch}
"""What does each command."""
