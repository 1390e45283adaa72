"""What ``interlock kill`` and ``interlock resume`` do: write the order, wait until it is obeyed, close the rest."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import anyio

from interlock.observability.tracing import Tracing
from interlock.protocol.control import AgentScope, AllScope, JobScope, Order, TeamScope, stop_of, stop_of_job
from interlock.protocol.messages import JobClosed, JobRetried, JobSubmitted
from interlock.protocol.state import JobState
from interlock.protocol.subjects import job_chains, job_subjects, submitted_subject
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound, read_job
from interlock.runtime.closing import close_killed
from interlock.runtime.failures import BROKER_AWAY
from interlock.runtime.killswitch import command, describe_order
from interlock.runtime.place import Place, open_log, while_there

__all__ = ["kill", "open_jobs", "reach_within", "resume"]

_OBEYED = 2.0
"""Seconds without an entry after which nobody runs a job that is to end, and it is closed here."""

_AWAY = 3.0
"""Seconds without a broker after which it is not waited for."""

_AT_ONCE = 16
"""How many jobs are looked at beside each other."""

_REASON = 1000
"""Characters of the reason of an order."""


async def kill(
    place: Place, scope: AllScope | TeamScope | JobScope | AgentScope, reason: str
) -> tuple[Order, list[JobState]]:
    """Write a kill order and return it with the last states of the jobs that it ended.

    An order for an agent ends no job: its tasks wait until the order is lifted or the job's time is up. But where the
    agent is a team, the jobs that do its work end.

    :raises JobNotFound: the order is for a job that is not in the log
    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    :raises JobLeftOpen: a job could not be closed
    """
    async with open_log(place, "kill") as bus:
        if isinstance(scope, JobScope) and await bus.last(submitted_subject(bus.ns, scope.job)) is None:
            raise JobNotFound(scope.job, await bus.jobs())
        order = await command(bus, scope, stop=True, reason=reason)  # before anything that takes time
        bound: list[str] | None = None
        ended: dict[str, JobState] = {}
        async with while_there(bus, _AWAY):
            with suppress(*BROKER_AWAY):
                bound = await reach_within(bus, order)
                await _obeyed(bus, bound, ended)
    if bound is None or len(ended) < len(bound):  # nobody ran them, or who did took his broker with him
        async with open_log(place, "kill") as bus:
            bound = await reach_within(bus, order) if bound is None else bound
            for job in set(bound) - set(ended):
                ended[job] = await close_killed(bus, Tracing(), job, describe_order(order))
    return order, [ended[job] for job in bound]


async def resume(place: Place, scope: AllScope | TeamScope | JobScope | AgentScope) -> Order:
    """Lift the kill order of a scope; a job that it ended stays ended.

    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    """
    async with open_log(place, "resume") as bus:
        return await command(bus, scope, stop=False)


async def open_jobs(bus: Bus, order: Order | None = None) -> dict[str, JobSubmitted]:
    """Return the first entries of the jobs that are not closed, and of those that ``order`` has closed already.

    A few entries are read for each job, however large.

    :raises BusError: the broker cannot be reached
    """
    jobs: dict[str, JobSubmitted] = {}
    closed: set[str] = set()
    async with bus.follow([job_chains(bus.ns)]) as batches:
        async for batch in batches:
            for entry in batch.entries:
                match entry.message:
                    case JobSubmitted() as submitted:
                        jobs[submitted.job] = submitted
                    case JobClosed() as end if order is None or not _ended_by(order, end):
                        closed.add(end.job)
                    case JobRetried(job=job):
                        closed.discard(job)
                    case _:
                        pass
            if not batch.pending:
                break
    return {job: submitted for job, submitted in jobs.items() if job not in closed}


async def reach_within(bus: Bus, order: Order) -> list[str]:
    """Return the jobs that a kill order ends, and have those told who run them.

    :raises BusError: the broker cannot be reached
    """
    jobs = await open_jobs(bus, order)
    bound = [job for job, submitted in jobs.items() if stop_of_job({"": order}, submitted) is not None]
    await _tell_supervisors(bus, order, [jobs[job] for job in bound])
    return bound


def _ended_by(order: Order, end: JobClosed) -> bool:
    return end.status == "killed" and describe_order(order) in end.reason


async def _tell_supervisors(bus: Bus, order: Order, stopped: Sequence[JobSubmitted]) -> None:
    """Order the end of the jobs that are stopped by what they do the work of, each outermost one.

    Those who run agents know jobs by their ids, and so whether one is within another, but not the teams around them.
    """
    below = {one.job for one in stopped if stop_of({"": order}, team=one.team.team, job=one.job) is None}
    for one in stopped:
        if one.job in below and one.parent not in below:
            await command(bus, JobScope(job=one.job), stop=True, reason=describe_order(order)[:_REASON])


async def _obeyed(bus: Bus, jobs: Iterable[str], ended: dict[str, JobState]) -> None:
    """Put the last states of ``jobs`` into ``ended``, except of those that nobody ends."""
    several = anyio.CapacityLimiter(_AT_ONCE)

    async def look(job: str) -> None:
        async with several:
            if await _is_obeyed(bus, job):
                ended[job] = await read_job(bus, job)

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(look, job)


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
