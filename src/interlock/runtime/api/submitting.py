"""Gives a job to a team, for whoever asks over HTTP: checked, frozen, and in the log once."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from interlock.agents.plan_checks import PlanChecks
from interlock.protocol.base import Json
from interlock.protocol.errors import BodyTooLarge as MessageTooLarge
from interlock.protocol.errors import NotInVersion
from interlock.protocol.items import Priority
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.subjects import submitted_subject
from interlock.protocol.team import Autonomy, Budget, Team
from interlock.runtime.api.context import ApiContext
from interlock.runtime.api.problems import (
    BodyTooLarge,
    InputsUnusable,
    JobDiffers,
    JobForbidden,
    TeamUnusable,
    VersionTooOld,
)
from interlock.runtime.client import new_job_id, submit
from interlock.runtime.killswitch import Guardian, JobKilled, describe_order
from interlock.runtime.presence import PublishedTeam
from interlock.runtime.source_errors import (
    InputsMissing,
    InputWrongType,
    ItemUnusable,
    SourceError,
    UnknownInput,
)
from interlock.runtime.sources import FrozenJob, StoredJob, freeze_values, store
from interlock.runtime.teamfile import known_team

__all__ = ["Wanted", "submit_job"]

_log = logging.getLogger(__name__)

_THEIRS = (InputsMissing, InputWrongType, ItemUnusable, UnknownInput)
"""What is wrong with values that a request brings; anything else is about files that the team itself names."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job that somebody asks for."""

    team: PublishedTeam
    goal: str
    inputs: Mapping[str, Json]
    id: str | None = None
    """None: a new one."""
    autonomy: Autonomy | None = None
    budget: Budget | None = None
    priority: Priority = "normal"
    approve_plan: bool = False


async def submit_job(context: ApiContext, wanted: Wanted) -> tuple[str, bool]:
    """Return the id of a job that is in the log now, and whether it was not there before.

    :raises InputsUnusable: the inputs are not those that the team wants
    :raises JobDiffers: there is another job of this id
    :raises JobForbidden: a standing order forbids it
    :raises TeamUnusable: files that the team names cannot be read here
    :raises VersionTooOld: machines are there that cannot read such a job
    :raises BodyTooLarge: team and inputs together are too much
    :raises BusError: the broker is out of reach, or has no room
    """
    team = wanted.team.team
    job, goal = wanted.id or new_job_id(team.team), wanted.goal or team.description
    if not (goal or team.plan):
        raise InputsUnusable("the team plans from a goal: say one")
    frozen = await run_sync(partial(_frozen, wanted.team, wanted.inputs))
    try:
        await Guardian(context.bus, team=team.team, job=job).check()
        given = await store(frozen, context.bus)
        is_new = False
        with anyio.CancelScope(shield=True):  # there is a job or there is none
            is_new = await _submitted(context, wanted, given, job, goal)
    except JobKilled as error:
        raise JobForbidden(describe_order(error.order)) from None
    except MessageTooLarge:
        raise BodyTooLarge(context.settings.body_bytes) from None
    except NotInVersion as error:
        raise VersionTooOld(str(error)) from None
    if not is_new:
        await _check_same(context, wanted, given, job, goal)
    return job, is_new


async def _submitted(context: ApiContext, wanted: Wanted, given: StoredJob, job: str, goal: str) -> bool:
    return await submit(
        context.bus,
        context.tracing,
        given.team,
        goal,
        given.inputs,
        job,
        autonomy=wanted.autonomy,
        budget=wanted.budget,
        toolkit=wanted.team.toolkit,
        items=given.items,
        stored=given.stored,
        priority=wanted.priority,
        approve_plan=wanted.approve_plan,
    )


def _frozen(published: PublishedTeam, inputs: Mapping[str, Json]) -> FrozenJob:
    home = Path(published.base)
    loaded = known_team(published.team, published.toolkit, _inputs_used(published.team))
    try:
        return freeze_values(loaded, inputs, home)
    except _THEIRS as error:
        raise InputsUnusable(str(error)) from None
    except SourceError as error:
        _log.warning("team %s cannot be given a job: %s", published.team.team, error)
        raise TeamUnusable from None


def _inputs_used(team: Team) -> frozenset[str]:
    """Return the inputs that the team's templates name; who declares inputs takes those and no others."""
    if team.inputs:
        return frozenset()
    checks = PlanChecks(team)
    checks.run()
    return frozenset(checks.inputs_used)


async def _check_same(context: ApiContext, wanted: Wanted, given: StoredJob, job: str, goal: str) -> None:
    """Look whether the job of an id that was submitted before is the one that is wanted now.

    What a team has by itself may be different by now: it could have been brought up anew.

    :raises JobDiffers: it is another one
    """
    entry = await context.bus.last(submitted_subject(context.bus.ns, job))
    before = entry.message if entry else None
    if not isinstance(before, JobSubmitted):
        raise JobDiffers
    same = (before.team.team, before.goal) == (given.team.team, goal)
    for name in wanted.inputs:
        same = same and before.inputs.get(name) == given.inputs.get(name)
        same = same and before.stored.get(name) == given.stored.get(name)
    if not same:
        raise JobDiffers
