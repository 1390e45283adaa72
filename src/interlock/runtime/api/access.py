"""What a caller may see: jobs and teams, those that its key is not for being as if they were not there."""

import re

from interlock.protocol.lineage import root_of
from interlock.runtime.api.context import ApiContext
from interlock.runtime.api.index import KnownJob
from interlock.runtime.api.keys import Caller
from interlock.runtime.api.problems import JobUnknown, TeamUnknown
from interlock.runtime.presence import PublishedTeam

__all__ = ["job_for", "may_see", "team_for"]

_JOB = re.compile(r"[A-Za-z0-9_-]+(:[A-Za-z0-9_-]+)*")
_LONGEST = 128


async def job_for(context: ApiContext, caller: Caller, job: str) -> KnownJob:
    """Return a job that the caller may see.

    :raises JobUnknown: it is not there, or of another team
    :raises BusError: the broker is out of reach
    """
    if len(job) > _LONGEST or not _JOB.fullmatch(job):
        raise JobUnknown
    known = await context.jobs.get(job)
    if known is None or not await may_see(context, caller, known):
        raise JobUnknown
    return known


async def may_see(context: ApiContext, caller: Caller, known: KnownJob) -> bool:
    """Return whether a caller's key is for the team of a job, or for that of the job which it is a part of.

    :raises BusError: the broker is out of reach
    """
    if caller.teams is None:
        return True
    root = root_of(known.job)
    top = known if root == known.job else await context.jobs.get(root)
    return top is not None and caller.may_see(top.team)


async def team_for(context: ApiContext, caller: Caller, team: str) -> PublishedTeam:
    """Return a team that the caller may give jobs to, as it was last brought up.

    :raises TeamUnknown: it was not, or the key is not for it
    :raises BusError: the broker is out of reach
    """
    published = (await context.teams()).get(team) if caller.may_see(team) else None
    if published is None:
        raise TeamUnknown
    return published
