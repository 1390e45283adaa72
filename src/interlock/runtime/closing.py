"""Ends jobs in the log whose agents are gone."""

import anyio

from interlock.agents.children import inner_teams
from interlock.observability.tracing import Tracing
from interlock.protocol.control import Control
from interlock.protocol.lineage import is_within
from interlock.protocol.messages import JobClosed
from interlock.protocol.state import JobState
from interlock.protocol.subjects import job_chains, submitted_subject
from interlock.runtime.bus import Bus
from interlock.runtime.chain import patiently
from interlock.runtime.client import JobNotFound, read_job
from interlock.runtime.keeper import Keeper

__all__ = ["JobLeftOpen", "close_killed", "close_within"]

_STALLED = 10.0
"""Seconds after which a job that is to end, and of which nothing more enters the log, is left open."""


_AT_ONCE = 8
"""How many jobs are closed beside each other."""


class JobLeftOpen(Exception):
    """A job that is over and could not be closed in the log."""

    def __init__(self, job: str, reason: str) -> None:
        self.job = job
        self.reason = reason
        """Why it is over."""
        super().__init__(
            f"job {job} ({reason}) could not be closed in the log: nothing of it entered for {_STALLED:g} s"
        )


class _Doomed:
    """What a keeper heeds whose job is to end, whatever orders say."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self.control = Control()
        self.known = anyio.Event()
        self.known.set()

    def stops(self, _: object) -> str:
        """Return why the job ends."""
        return self._reason


async def close_killed(bus: Bus, tracing: Tracing, job: str, reason: str) -> JobState:
    """Close a job whose agents are gone, and return its last state: no manager is left, so this process decides as one.

    What the agents sent last may still come in and refuse a decision; then it is looked at again. A job that is closed
    already stays as it is. The jobs within it are closed after it.

    :raises JobNotFound: it was never submitted
    :raises JobLeftOpen: it, or one within it, could not be closed
    """
    state = await _close(bus, tracing, job, reason)
    if state.submitted is not None and any(inner_teams(state.submitted.team)):
        await close_within(bus, tracing, job, reason)
    return state


async def close_within(bus: Bus, tracing: Tracing, job: str, reason: str) -> None:
    """Close the jobs that are open within a job that is over, and whose agents are gone.

    :raises JobNotFound: there is no such job
    :raises JobLeftOpen: one of them could not be closed
    """
    left: list[JobLeftOpen] = []
    several = anyio.CapacityLimiter(_AT_ONCE)

    async def close(one: str) -> None:
        async with several:
            try:
                await _close(bus, tracing, one, reason)
            except JobLeftOpen as error:
                left.append(error)

    async with anyio.create_task_group() as group:
        for one in await _open_within(bus, job):
            group.start_soon(close, one)
    if left:
        raise left[0]


async def _open_within(bus: Bus, job: str) -> list[str]:
    """Return the jobs within a job that are not closed, in the order in which they began."""
    found: dict[str, bool] = {}
    async with bus.follow([job_chains(bus.ns)], await _first_sequence(bus, job)) as batches:
        async for batch in batches:
            for entry in batch.entries:
                one = entry.message.job
                if one != job and is_within(one, job):
                    found[one] = not isinstance(entry.message, JobClosed)
            if not batch.pending:
                break
    return [one for one, is_open in found.items() if is_open]


async def _close(bus: Bus, tracing: Tracing, job: str, reason: str) -> JobState:
    keeper = Keeper(bus, tracing, job, _Doomed(reason))
    with anyio.move_on_after(_STALLED) as limit:
        since = await _first_sequence(bus, job)
        async with anyio.create_task_group() as group:
            group.start_soon(_extend, limit, keeper)
            await keeper.run(since)
            group.cancel_scope.cancel()
        return await read_job(bus, job)
    raise JobLeftOpen(job, reason)


async def _first_sequence(bus: Bus, job: str) -> int:
    first = await patiently(lambda: bus.last(submitted_subject(bus.ns, job)))
    if first is None:
        raise JobNotFound(job, await bus.jobs())
    return first.seq


async def _extend(limit: anyio.CancelScope, keeper: Keeper) -> None:
    """Give the keeper time as long as its job comes nearer to its end."""
    state = keeper.state
    while True:
        await anyio.sleep(_STALLED / 10)
        if keeper.state is not state:
            state = keeper.state
            limit.deadline = anyio.current_time() + _STALLED
