"""Ends jobs in the log whose agents are gone."""

import anyio

from interlock.observability.tracing import Tracing
from interlock.protocol.control import Control
from interlock.protocol.state import JobState
from interlock.protocol.subjects import submitted_subject
from interlock.runtime.bus import Bus
from interlock.runtime.chain import patiently
from interlock.runtime.client import JobNotFound, read_job
from interlock.runtime.keeper import Keeper

__all__ = ["JobLeftOpen", "close_killed"]

_STALLED = 10.0
"""Seconds after which a job that is to end, and of which nothing more enters the log, is left open."""


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

    def stops(self, _team: str, _job: str) -> str:
        """Return why the job ends."""
        return self._reason


async def close_killed(bus: Bus, tracing: Tracing, job: str, reason: str) -> JobState:
    """Close a job whose agents are gone, and return its last state: no manager is left, so this process decides as one.

    What the agents sent last may still come in and refuse a decision; then it is looked at again. A job that is closed
    already stays as it is.

    :raises JobNotFound: it was never submitted
    :raises JobLeftOpen: it could not be closed
    """
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
