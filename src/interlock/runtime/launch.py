"""All that one job needs on one machine, for as long as it takes: broker, model engine, agent processes."""

import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import anyio

from interlock.backends.engines import LOCAL_URL_ENV, MODEL_URL_ENV
from interlock.backends.local import local_engine, local_environ
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.machine import Entry, JobState
from interlock.protocol.team import Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError
from interlock.runtime.client import JobNotFound, Progress, new_job_id, read_job, submit, watch
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.failures import BROKER_AWAY, first_error
from interlock.runtime.place import Place, open_bus
from interlock.runtime.staffing import models_used, process_configs
from interlock.runtime.supervisor import supervised
from interlock.runtime.view import View

__all__ = ["Interruption", "JobInterrupted", "JobLeftOpen", "Order", "run_job"]

_log = logging.getLogger(__name__)

_CLOSING = 10.0
"""Seconds that a job which is to end may take to be closed in the log."""

_RETRY = 0.1
"""Seconds before that is tried again where the broker is away."""


class JobInterrupted(Exception):
    """A person wanted no job any more before there was one."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{reason} before the job began")


class JobLeftOpen(Exception):
    """A job that is over and could not be closed in the log."""

    def __init__(self, job: str, reason: str) -> None:
        self.job = job
        self.reason = reason
        """Why it is over."""
        super().__init__(f"job {job} ({reason}) could not be closed in the log within {_CLOSING:g} s")


@dataclass(frozen=True, slots=True)
class Order:
    """One job to run."""

    team: Team
    goal: str
    inputs: dict[str, Json]
    workers: int | None = None
    """Processes of each worker; None: one for each core, shared by the team's workers."""


class Interruption:
    """A person's wish that the job ends now."""

    def __init__(self) -> None:
        self.reason = ""
        """Empty as long as nobody wishes it."""
        self._scope = anyio.CancelScope()

    def trigger(self, reason: str) -> None:
        """End what ``ends`` is around; ``reason`` will stand in the job's report."""
        self.reason = reason
        self._scope.cancel()

    @contextmanager
    def ends(self) -> Iterator[None]:
        """Cancel the block once there is a wish, also one from before. To be used once."""
        with self._scope:
            yield


async def run_job(place: Place, order: Order, view: View, tracing: Tracing, interruption: Interruption) -> JobState:
    """Run one job from its submission to its end and return its last state.

    An interruption ends the agents and then closes the job as killed; so does whatever is raised.

    :raises BrokerError: the broker cannot be started
    :raises BusError: the broker cannot be reached
    :raises ModelError: the local engine cannot be started
    :raises AgentProcessFailed: an agent process fails again and again
    :raises BodyTooLarge: team and inputs together are too much
    :raises JobInterrupted: there was an interruption before there was a job
    :raises JobLeftOpen: the job was interrupted and could not be closed
    """
    job, bus = new_job_id(order.team.team), None
    async with AsyncExitStack() as stack:
        try:
            with interruption.ends():
                bus, address = await stack.enter_async_context(open_bus(place, "client"))
                return await _run(bus, address, order, view, tracing, job)
        except Exception as error:  # noqa: BLE001 -- raised again once the job is closed
            cause = first_error(error)
            if bus is not None:
                await _close_after(cause, bus, tracing, job, view)
            raise cause from None
        if bus is None:
            raise JobInterrupted(interruption.reason)
        return await _close_killed(bus, tracing, job, view, interruption.reason)


async def _run(bus: Bus, address: BrokerAddress, order: Order, view: View, tracing: Tracing, job: str) -> JobState:
    with anyio.CancelScope(shield=True):  # there is a job or there is none
        await submit(bus, tracing, order.team, order.goal, order.inputs, job)
    state = JobState()
    async with _engine(order.team, view) as environment:
        configs = process_configs(order.team, bus.ns, address, job=job, workers=order.workers)
        async with supervised(configs, environment), aclosing(watch(bus, job)) as news:
            async for progress in news:
                view.show(progress)
                state = progress.state
    return state


async def _close_after(error: BaseException, bus: Bus, tracing: Tracing, job: str, view: View) -> None:
    """Close the job, if there is one, because of ``error``, which is what matters where that fails too."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    with suppress(JobNotFound):
        try:
            await _close_killed(bus, tracing, job, view, reason)
        except (BusError, JobLeftOpen) as problem:
            _log.warning("%s", problem)


async def _close_killed(bus: Bus, tracing: Tracing, job: str, view: View, reason: str) -> JobState:
    """Close a job whose agents are gone: no manager is left, so this process decides as one.

    What the agents sent last may still come in and refuse a decision; then it is looked at again.

    :raises JobNotFound: it was never submitted
    :raises JobLeftOpen: it could not be closed
    """
    coordinator = Coordinator(bus, tracing)
    with anyio.move_on_after(_CLOSING):
        while True:
            try:
                state = await _killed(bus, coordinator, job, reason)
            except BROKER_AWAY as error:
                _log.info("closing job %s waits for the broker: %s", job, error)
                await anyio.sleep(_RETRY)
                continue
            if state.closed is not None:
                view.show(Progress((Entry(state.head, state.closed),), state))
                return state
    raise JobLeftOpen(job, reason)


async def _killed(bus: Bus, coordinator: Coordinator, job: str, reason: str) -> JobState:
    state = await read_job(bus, job)
    if state.submitted is None or state.closed is not None:
        return state
    known = coordinator.job(state.submitted, state.origin, state)
    await coordinator.advance(known, killed=reason)
    return known.state


@asynccontextmanager
async def _engine(team: Team, view: View) -> AsyncIterator[Mapping[str, str]]:
    """Start the local engine if an agent thinks with it; yield the environment for the agent processes."""
    wanted = {settings.engine for _, settings in models_used(team)}
    if "local" not in wanted or os.environ.get(MODEL_URL_ENV) or os.environ.get(LOCAL_URL_ENV):
        yield os.environ
        return
    view.say("starting the local model")
    async with local_engine() as endpoint:
        yield {**os.environ, **local_environ(endpoint)}
