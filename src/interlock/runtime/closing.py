"""Ends jobs in the log whose agents are gone."""

import logging

import anyio

from interlock.observability.tracing import Tracing
from interlock.protocol.state import JobState
from interlock.runtime.bus import Bus
from interlock.runtime.carrying import Carrier
from interlock.runtime.client import read_job
from interlock.runtime.failures import BROKER_AWAY

__all__ = ["JobLeftOpen", "close_killed"]

_log = logging.getLogger(__name__)

_CLOSING = 10.0
"""Seconds that a job which is to end may take to be closed in the log."""

_RETRY = 0.1
"""Seconds before that is tried again where the broker is away."""


class JobLeftOpen(Exception):
    """A job that is over and could not be closed in the log."""

    def __init__(self, job: str, reason: str) -> None:
        self.job = job
        self.reason = reason
        """Why it is over."""
        super().__init__(f"job {job} ({reason}) could not be closed in the log within {_CLOSING:g} s")


async def close_killed(bus: Bus, tracing: Tracing, job: str, reason: str) -> JobState:
    """Close a job whose agents are gone, and return its last state: no manager is left, so this process decides as one.

    What the agents sent last may still come in and refuse a decision; then it is looked at again. A job that is closed
    already stays as it is.

    :raises JobNotFound: it was never submitted
    :raises JobLeftOpen: it could not be closed
    """
    with anyio.move_on_after(_CLOSING):
        while True:
            try:
                state = await _killed(bus, tracing, job, reason)
            except BROKER_AWAY as error:
                _log.info("closing job %s waits for the broker: %s", job, error)
                await anyio.sleep(_RETRY)
                continue
            if state.closed is not None:
                return state
    raise JobLeftOpen(job, reason)


async def _killed(bus: Bus, tracing: Tracing, job: str, reason: str) -> JobState:
    state = await read_job(bus, job)
    if state.submitted is None or state.closed is not None:
        return state
    carrier = Carrier(bus, tracing, state.submitted, state.origin)
    carrier.state = state
    await carrier.advance(killed=reason)
    return carrier.state
