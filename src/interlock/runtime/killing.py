"""What ``interlock kill`` and ``interlock resume`` do: write the order, wait until it is obeyed, close the rest."""

from contextlib import suppress

import anyio

from interlock.observability.tracing import Tracing
from interlock.protocol.control import AgentScope, AllScope, JobScope, Order, TeamScope, stop_of
from interlock.protocol.messages import JobClosed, JobRetried, JobSubmitted
from interlock.protocol.state import JobState
from interlock.protocol.subjects import job_chains, job_subjects, submitted_subject
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound, read_job
from interlock.runtime.closing import close_killed
from interlock.runtime.failures import BROKER_AWAY
from interlock.runtime.killswitch import command, describe_order
from interlock.runtime.place import Place, open_log

__all__ = ["kill", "open_jobs", "resume"]

_OBEYED = 2.0
"""Seconds without an entry after which nobody runs a job that is to end, and it is closed here."""


async def kill(
    place: Place, scope: AllScope | TeamScope | JobScope | AgentScope, reason: str
) -> tuple[Order, list[JobState]]:
    """Write a kill order and return it with the last states of the jobs that it ended.

    An order for an agent ends no job: its tasks wait until the order is lifted or the job's time is up.

    :raises JobNotFound: the order is for a job that is not in the log
    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    :raises JobLeftOpen: a job could not be closed
    """
    async with open_log(place, "kill") as bus:
        if isinstance(scope, JobScope) and await bus.last(submitted_subject(bus.ns, scope.job)) is None:
            raise JobNotFound(scope.job, await bus.jobs())
        order = await command(bus, scope, stop=True, reason=reason)  # before anything that takes time
        jobs = (await open_jobs(bus)).items()
        bound = [job for job, team in jobs if stop_of({"": order}, team=team, job=job) is not None]
        left = [job for job in bound if not await _is_obeyed(bus, job)]
        ended = {job: await read_job(bus, job) for job in bound if job not in left}
    if left:  # nobody ran them, or who did took his broker with him: that needs a look of its own
        async with open_log(place, "kill") as bus:
            ended |= {job: await close_killed(bus, Tracing(), job, describe_order(order)) for job in left}
    return order, [ended[job] for job in bound]


async def resume(place: Place, scope: AllScope | TeamScope | JobScope | AgentScope) -> Order:
    """Lift the kill order of a scope; a job that it ended stays ended.

    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    """
    async with open_log(place, "resume") as bus:
        return await command(bus, scope, stop=False)


async def open_jobs(bus: Bus) -> dict[str, str]:
    """Return the jobs that are not closed, with their teams. A few entries are read for each job, however large.

    :raises BusError: the broker cannot be reached
    """
    teams: dict[str, str] = {}
    closed: set[str] = set()
    async with bus.follow([job_chains(bus.ns)]) as batches:
        async for batch in batches:
            for entry in batch.entries:
                match entry.message:
                    case JobSubmitted() as submitted:
                        teams[submitted.job] = submitted.team.team
                    case JobClosed(job=job):
                        closed.add(job)
                    case JobRetried(job=job):
                        closed.discard(job)
                    case _:
                        pass
            if not batch.pending:
                break
    return {job: team for job, team in teams.items() if job not in closed}


async def _is_obeyed(bus: Bus, job: str) -> bool:
    """Wait until a job is closed, as long as something enters the log of it."""
    with suppress(*BROKER_AWAY), anyio.move_on_after(_OBEYED) as limit:
        last = await bus.last(job_subjects(bus.ns, job))
        async with bus.follow([job_subjects(bus.ns, job)], last.seq if last else 1) as batches:
            async for batch in batches:
                limit.deadline = anyio.current_time() + _OBEYED
                if any(isinstance(entry.message, JobClosed) for entry in batch.entries):
                    return True
    return False
