"""All that one job needs on one machine, for as long as it takes: broker, model engine, agent processes."""

import math
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio

from interlock.agents.manager import verifier_of
from interlock.backends.capabilities import CAPABILITIES
from interlock.backends.engines import LOCAL_URL_ENV, MODEL_URL_ENV
from interlock.backends.local import local_engine, local_environ
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.criteria import JudgeCriterion
from interlock.protocol.machine import JobState
from interlock.protocol.team import Engine, Handover, ModelSettings, Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker
from interlock.runtime.bus import Bus
from interlock.runtime.client import new_job_id, read_job, submit, watch
from interlock.runtime.config import BrokerLogin, ProcessConfig
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.supervisor import AgentProcessFailed, supervised
from interlock.runtime.view import View

__all__ = [
    "NAMESPACE",
    "Interruption",
    "Order",
    "Place",
    "first_error",
    "models_used",
    "open_bus",
    "process_configs",
    "run_job",
]

NAMESPACE = "main"
"""The namespace that commands work in."""

Exc = TypeVar("Exc", bound=BaseException)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the log is."""

    state: Path
    """The embedded broker's folder; unused with ``nats``."""
    nats: BrokerAddress | None = None
    """A broker that runs elsewhere."""
    durable: bool = False
    """Whether the embedded broker syncs before it acknowledges."""


@dataclass(frozen=True, slots=True)
class Order:
    """One job to run."""

    team: Team
    goal: str
    inputs: dict[str, Json]
    workers: int | None = None
    """Processes of each worker; None: one for each core, shared by the team's workers."""


@asynccontextmanager
async def open_bus(place: Place, name: str) -> AsyncIterator[tuple[Bus, BrokerAddress]]:
    """Connect to the broker of ``place``, starting the embedded one where none is named.

    :raises BrokerError: it cannot be started or reached
    """
    async with AsyncExitStack() as stack:
        address = place.nats
        if address is None:
            address = await stack.enter_async_context(embedded_broker(place.state, durable=place.durable))
        yield await stack.enter_async_context(Bus.connect(address, NAMESPACE, name)), address


class Interruption:
    """A person's wish that the job ends now."""

    def __init__(self) -> None:
        self.reason = ""
        self.scope = anyio.CancelScope()

    def trigger(self, reason: str) -> None:
        """End the job; ``reason`` will stand in its report."""
        self.reason = reason
        self.scope.cancel()


async def run_job(place: Place, order: Order, view: View, tracing: Tracing, interruption: Interruption) -> JobState:
    """Run one job from its submission to its end and return its last state.

    An interruption, or agents that cannot run, end the agents first; then the job is closed as killed.

    :raises BrokerError: the broker cannot be started or reached
    :raises ModelError: the local engine cannot be started
    :raises AgentProcessFailed: an agent process does not get ready
    """
    job = new_job_id(order.team.team)
    async with open_bus(place, "client") as (bus, address):
        try:
            with interruption.scope:
                return await _run(bus, address, order, view, tracing, job)
        except* AgentProcessFailed as group:
            error = first_error(group)
            await _close_killed(bus, tracing, job, view, str(error).partition("\n")[0])
            raise error from None
        return await _close_killed(bus, tracing, job, view, interruption.reason)


async def _run(bus: Bus, address: BrokerAddress, order: Order, view: View, tracing: Tracing, job: str) -> JobState:
    await submit(bus, tracing, order.team, order.goal, order.inputs, job)
    async with _engine(order.team, view) as environment:
        configs = process_configs(order.team, bus.ns, address, job=job, workers=order.workers)
        async with supervised(configs, environment):
            async for progress in watch(bus, job):
                view.show(progress)
    return progress.state


async def _close_killed(bus: Bus, tracing: Tracing, job: str, view: View, reason: str) -> JobState:
    """Close a job whose agents are gone. No manager is left, so this process decides as one."""
    state = await read_job(bus, job)
    if state.submitted is not None:
        coordinator = Coordinator(bus, tracing)
        await coordinator.advance(coordinator.job(state.submitted, state.origin, state), killed=reason)
    async for progress in watch(bus, job):
        view.show(replace(progress, entries=progress.entries[-1:]))
    return progress.state


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


def process_configs(
    team: Team, ns: str, address: BrokerAddress, *, job: str | None = None, workers: int | None = None
) -> list[ProcessConfig]:
    """Return one configuration for each process that ``team`` needs: a manager, its workers and its verifiers."""
    broker = BrokerLogin.of(address)
    roles = [(name, team.agents[name]) for name in _agents_used(team)]
    count = sum(agent.kind == "worker" for _, agent in roles)
    each = workers or max(1, (os.cpu_count() or 1) // max(1, count))
    configs = [ProcessConfig(kind="manager", name="manager", ns=ns, broker=broker, job=job)]
    for name, agent in roles:
        settings = _settings(team, name) if _thinks(team, name) else None
        serial = settings is not None and CAPABILITIES[_engine_of(settings)].parallel == 1
        copies = each if agent.kind == "worker" and not serial else 1
        configs += (
            ProcessConfig(
                kind="worker" if agent.kind == "worker" else "verifier",
                name=f"{name}-{number}",
                ns=ns,
                broker=broker,
                job=job,
                team=team.team,
                agent_name=name,
                agent=agent,
                model=settings,
                slots=1 if serial else max(1, math.ceil(team.limits.parallel / copies)),
            )
            for number in range(1, copies + 1)
        )
    return configs


def models_used(team: Team) -> list[tuple[str, ModelSettings]]:
    """Return the agents that think in a job of ``team``, with the model that each thinks with."""
    return [(name, _settings(team, name)) for name in _agents_used(team) if _thinks(team, name)]


def first_error(group: BaseExceptionGroup[Exc]) -> Exc:
    """Return the first of the errors in ``group``, however deep it stands."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error


def _agents_used(team: Team) -> list[str]:
    """Return the workers and verifiers that the plan names, in its order."""
    names: dict[str, None] = {}
    for step in team.plan:
        names[step.agent] = None
        if isinstance(step.on_failure, Handover):
            names[step.on_failure.agent] = None
        names[verifier_of(team, step)] = None
    return list(names)


def _thinks(team: Team, name: str) -> bool:
    """Whether an agent needs a model: a worker does, a verifier only as a judge."""
    if team.agents[name].kind == "worker":
        return True
    judged = [step for step in team.plan if verifier_of(team, step) == name]
    return any(isinstance(criterion, JudgeCriterion) for step in judged for criterion in step.verify.criteria)


def _settings(team: Team, name: str) -> ModelSettings:
    return team.agents[name].model or team.model


def _engine_of(settings: ModelSettings) -> Engine:
    return "openai" if os.environ.get(MODEL_URL_ENV) else settings.engine
