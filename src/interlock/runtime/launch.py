"""All that one job needs on one machine, for as long as it takes: broker, model engine, agent processes."""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from interlock.agents.children import inner_teams, teams_of
from interlock.agents.tools.secrets import Secrets
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json, role_of
from interlock.protocol.state import Entry, JobState
from interlock.protocol.subjects import submitted_subject
from interlock.protocol.team import Autonomy, Budget, Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError
from interlock.runtime.client import JobNotFound, Progress, new_job_id, submit, watch
from interlock.runtime.closing import JobLeftOpen, close_killed, close_within
from interlock.runtime.config import ACK_WAIT, NO_TOOLKIT, Toolkit
from interlock.runtime.credentials import parties_of
from interlock.runtime.failures import first_error
from interlock.runtime.item_sources import ItemSource
from interlock.runtime.killswitch import GUARDS, Guard, Guardian
from interlock.runtime.model_engines import Gauges, engines_for
from interlock.runtime.place import Place, open_bus
from interlock.runtime.results import write_results
from interlock.runtime.sources import FrozenJob, store
from interlock.runtime.staffing import process_configs, queues_of
from interlock.runtime.supervisor import Supervisor, supervised
from interlock.runtime.view import View

__all__ = ["Interruption", "JobInterrupted", "Order", "run_job"]

_log = logging.getLogger(__name__)

_HEADWAY = 4.0
"""Seconds by which agents that are cut off end before the broker gives their work to others."""


class JobInterrupted(Exception):
    """A person wanted no job any more before there was one."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{reason} before the job began")


@dataclass(frozen=True, slots=True)
class Order:
    """One job to run."""

    team: Team
    goal: str
    inputs: dict[str, Json]
    workers: int | None = None
    """Processes of each worker; None: one for each core, shared by the team's workers."""
    guard: Guard = "available"
    """How long agents may work on while it cannot be known whether they were killed."""
    autonomy: Autonomy | None = None
    """None: as the team says."""
    budget: Budget | None = None
    """What this job may use up, where that is less than the team allows."""
    job: str | None = None
    """The job's id; None: a new one."""
    approve_plan: bool = False
    """Whether a person is asked before a plan that the manager made is followed."""
    toolkit: Toolkit = NO_TOOLKIT
    results: Path | None = None
    """Where what its tasks come to is written while it runs."""
    items: Mapping[str, ItemSource] = field(default_factory=dict[str, ItemSource])
    """As in ``FrozenJob``, and so are the ``lists``."""
    lists: Mapping[str, ItemSource] = field(default_factory=dict[str, ItemSource])
    gauges: Gauges = field(default_factory=Gauges)
    """What its engines tell of it, to be read when it is over."""


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
    """Run one job from its submission to its end and return its last state; one that is in the log already goes on.

    An interruption ends the agents and then closes the job as killed; so does whatever is raised.

    :raises BrokerError: the broker cannot be started, or has no keys for the team's agents
    :raises BusError: the broker cannot be reached
    :raises ModelError: an engine cannot be started
    :raises AgentProcessFailed: an agent process fails again and again
    :raises BodyTooLarge: team and inputs together are too much
    :raises JobKilled: a standing kill order forbids the job
    :raises JobInterrupted: there was an interruption before there was a job
    :raises JobLeftOpen: the job was interrupted and could not be closed
    """
    job, bus = order.job or new_job_id(order.team.team), None
    async with AsyncExitStack() as stack:
        try:
            with interruption.ends():
                parties = parties_of([order.team])
                bus, address = await stack.enter_async_context(open_bus(place, "client", parties))
                guardian = Guardian(bus, team=order.team.team, job=job, guard=order.guard)
                await guardian.check()
                engines = engines_for([order.team], view.wait, interruption.trigger)
                environment = await stack.enter_async_context(engines)
                await order.gauges.begin(order.team, environment)
                ground = _Ground(bus, address, _patience(place, order.guard), environment)
                state = await _run(ground, order, view, tracing, job, guardian, interruption)
                await order.gauges.end()
                return state
        except Exception as error:  # noqa: BLE001 -- raised again once the job is closed
            cause = first_error(error)
            if bus is not None:
                await _close_after(cause, bus, tracing, job, view)
            raise cause from None
        if bus is None:
            raise JobInterrupted(interruption.reason)
        try:
            return await _close_killed(bus, tracing, job, view, interruption.reason)
        except JobNotFound:  # its engine was still coming up
            raise JobInterrupted(interruption.reason) from None


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a job stands on."""

    bus: Bus
    address: BrokerAddress
    patience: float
    """Seconds that the broker waits for an agent that says nothing."""
    environment: Mapping[str, str]
    """For the agents' processes, which find their engines by it."""


def _patience(place: Place, guard: Guard) -> float:
    """Return how long the broker waits: long enough that agents who are cut off from it have ended by themselves.

    An embedded broker ends with its agents and is cut off from none of them.
    """
    return ACK_WAIT if place.nats is None else max(ACK_WAIT, GUARDS[guard] + _HEADWAY)


async def _run(
    ground: _Ground,
    order: Order,
    view: View,
    tracing: Tracing,
    job: str,
    guardian: Guardian,
    interruption: Interruption,
) -> JobState:
    bus, address = ground.bus, ground.address
    given = await store(FrozenJob(order.team, order.inputs, order.items, order.lists), bus)
    with anyio.CancelScope(shield=True):  # there is a job or there is none
        await submit(
            bus,
            tracing,
            given.team,
            order.goal,
            given.inputs,
            job,
            autonomy=order.autonomy,
            budget=order.budget,
            toolkit=order.toolkit,
            items=given.items,
            stored=given.stored,
            approve_plan=order.approve_plan,
        )
    state = JobState()
    environment = ground.environment
    async with _queues(ground, order.team, job) as lane:
        configs = process_configs(
            order.team, bus.ns, address, job=job, workers=order.workers, toolkit=order.toolkit, lane=lane
        )
        configs = [config.model_copy(update={"patience": ground.patience}) for config in configs]
        secrets = {f"{one.team}.{name}": secret for one in teams_of(order.team) for name, secret in one.secrets.items()}
        hide = Secrets.from_environment(secrets, environment).scrub
        leased = supervised(configs, environment, lease=guardian.seconds, hide=hide)
        async with leased as supervisor, anyio.create_task_group() as writers, anyio.create_task_group() as group:
            if order.results is not None:
                writers.start_soon(write_results, bus, job, order.results)
            group.start_soon(_obey, guardian, supervisor, order.team, interruption)
            async with aclosing(watch(bus, job)) as news:
                async for progress in news:
                    view.show(progress)
                    state = progress.state
            group.cancel_scope.cancel()
    if any(inner_teams(order.team)):  # nobody is left who could begin another one
        await close_within(bus, tracing, job, f"job {job}, which it was a part of, is over")
    return state


@asynccontextmanager
async def _queues(ground: _Ground, team: Team, job: str) -> AsyncIterator[int | None]:
    """Make the queues of the job where its agents have credentials of their own, which let them make none."""
    if ground.address.keys is None:
        yield None
        return
    first = await ground.bus.last(submitted_subject(ground.bus.ns, job))
    inner = [queue for one in teams_of(team)[1:] for queue in queues_of(one)]
    since = first.seq if first else 1
    async with ground.bus.queues(queues_of(team), job, inner=inner, since=since, ack_wait=ground.patience) as lane:
        yield lane


async def _obey(guardian: Guardian, supervisor: Supervisor, team: Team, interruption: Interruption) -> None:
    """End the job when an order says so; hold the agents that orders stop, and let them go on when they are lifted.

    So it goes with the agents of the teams within its team, and with the jobs within it.
    """
    roles = [role_of(name, one.team) for one in teams_of(team) for name in one.agents]

    def looked(until: float) -> None:
        supervisor.renew(until)
        stops = guardian.stops(roles)
        supervisor.hold(stops.roles)
        supervisor.kill_jobs(stops.jobs)

    def over(reason: str) -> None:
        supervisor.stop()
        interruption.trigger(reason)

    await guardian.watch(looked, over)


async def _close_after(error: BaseException, bus: Bus, tracing: Tracing, job: str, view: View) -> None:
    """Close the job, if there is one, because of ``error``, which is what matters where that fails too."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    with suppress(JobNotFound):
        try:
            await _close_killed(bus, tracing, job, view, reason)
        except (BusError, JobLeftOpen) as problem:
            _log.warning("%s", problem)


async def _close_killed(bus: Bus, tracing: Tracing, job: str, view: View, reason: str) -> JobState:
    state = await close_killed(bus, tracing, job, reason)
    if state.closed is not None:
        view.show(Progress((Entry(state.head, state.closed),), state))
    return state
