"""A manager and the real agents of a team, as tasks of the test's own process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from interlock.observability.tracing import Tracing
from interlock.protocol.team import Team
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.config import NO_TOOLKIT, BrokerLogin, ProcessConfig, Toolkit, ToolSetup
from interlock.runtime.coordinator import Coordinator
from interlock.runtime.manager_model import proposers_of
from interlock.runtime.verifier_role import serve_verifier
from interlock.runtime.worker_role import serve_worker

__all__ = ["serving"]


@asynccontextmanager
async def serving(bus: Bus, broker: BrokerAddress, team: Team, toolkit: Toolkit = NO_TOOLKIT) -> AsyncIterator[None]:
    """Manage every job and serve every role of ``team`` while the block runs."""

    def config(name: str) -> ProcessConfig:
        agent = team.agents[name]
        tools = ToolSetup(sources=team.tools, secrets={}, catalogue=toolkit.catalogue, base=toolkit.base)
        return ProcessConfig(
            kind="verifier" if agent.kind == "verifier" else "worker",
            name=name,
            ns=bus.ns,
            broker=BrokerLogin.of(broker),
            team=team.team,
            agent_name=name,
            agent=agent,
            model=team.model,
            tools=tools if agent.kind == "worker" and toolkit.catalogue else None,
            slots=8,
        )

    async with anyio.create_task_group() as group:
        group.start_soon(Coordinator(bus, Tracing(), proposers=proposers_of(bus, Tracing())).run)
        for name, agent in team.agents.items():
            serve = serve_worker if agent.kind == "worker" else serve_verifier
            group.start_soon(serve, config(name), bus, Tracing(), lambda: None)
        yield
        group.cancel_scope.cancel()
