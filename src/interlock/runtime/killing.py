"""What ``interlock kill`` and ``interlock resume`` do: write the order, wait until it is obeyed, close the rest."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio

from interlock.observability.tracing import Tracing
from interlock.protocol.control import AgentScope, AllScope, JobScope, Order, TeamScope, stop_of
from interlock.protocol.state import JobState
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound, read_jobs, watch
from interlock.runtime.closing import close_killed
from interlock.runtime.killswitch import command, describe_order
from interlock.runtime.place import Place, open_log

__all__ = ["kill", "resume"]

_OBEYED = 2.0
"""Seconds that whoever runs a job has to end and close it; then nobody runs it, and it is closed here."""


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
    ended: dict[str, JobState] = {}
    async with open_log(place, "kill") as bus:
        if isinstance(scope, JobScope) and scope.job not in (known := await bus.jobs()):
            raise JobNotFound(scope.job, known)
        jobs = [job async for job in _open_jobs(bus)]
        order = await command(bus, scope, stop=True, reason=reason)
        bound = [job for job, team in jobs if stop_of({"": order}, team=team, job=job) is not None]
        with anyio.move_on_after(_OBEYED):
            for job in bound:
                ended[job] = await _until_closed(bus, job)
    if len(ended) < len(bound):  # nobody ran them, or who did took his broker with him: that needs a look of its own
        async with open_log(place, "kill") as bus:
            for job in bound:
                ended[job] = await close_killed(bus, Tracing(), job, describe_order(order))
    return order, [ended[job] for job in bound]


async def resume(place: Place, scope: AllScope | TeamScope | JobScope | AgentScope) -> Order:
    """Lift the kill order of a scope; a job that it ended stays ended.

    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    """
    async with open_log(place, "resume") as bus:
        return await command(bus, scope, stop=False)


async def _open_jobs(bus: Bus) -> AsyncIterator[tuple[str, str]]:
    """Yield the jobs that are not closed, with their teams."""
    async for state in read_jobs(bus):
        if state.submitted is not None and state.closed is None:
            yield state.submitted.job, state.submitted.team.team


async def _until_closed(bus: Bus, job: str) -> JobState:
    state = JobState()
    async with aclosing(watch(bus, job)) as news:
        async for progress in news:
            state = progress.state
    return state
