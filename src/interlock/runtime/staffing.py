"""Which processes the agents of a team need, and which models they think with."""

import math
import os
from collections.abc import Collection
from typing import Literal

from interlock.agents.children import Home, teams_of
from interlock.agents.grants import uses_of
from interlock.agents.manager import verifier_of
from interlock.agents.planning import manager_of, plans_by_itself
from interlock.backends.capabilities import CAPABILITIES
from interlock.backends.engines import MODEL_URL_ENV
from interlock.protocol.base import Role, role_of
from interlock.protocol.criteria import JudgeCriterion
from interlock.protocol.team import Agent, Engine, Handover, ModelSettings, Step, Team, tool_of
from interlock.runtime._names import QueueKind
from interlock.runtime.address import BrokerAddress
from interlock.runtime.api.settings import HttpSetup
from interlock.runtime.config import NO_TOOLKIT, BrokerLogin, ProcessConfig, Toolkit, ToolSetup
from interlock.runtime.credentials import Party
from interlock.runtime.keyring import login_of

__all__ = [
    "agent_configs",
    "api_config",
    "manager_config",
    "models_used",
    "process_configs",
    "queues_of",
    "roles_of",
    "tool_names",
]


def process_configs(
    team: Team,
    ns: str,
    address: BrokerAddress,
    *,
    job: str | None = None,
    workers: int | None = None,
    toolkit: Toolkit = NO_TOOLKIT,
    lane: int | None = None,
) -> list[ProcessConfig]:
    """Return one configuration for each process that ``team`` needs: a manager, its workers and its verifiers.

    So it is for the teams within it: their agents work for all jobs within ``job``, and are named for their roles.

    ``workers`` are the processes of each worker; left out, the workers share the cores. An agent never gets more
    processes than it can have tasks at once. ``lane`` is that of the queues that were made for the job.

    :raises interlock.runtime.broker_errors.BrokerError: there are keys of agents, but not of all these
    """
    agents = agent_configs(team, ns, address, job=job, workers=workers, toolkit=toolkit, lane=lane)
    inner = [
        config.model_copy(update={"job": job, "tree": job is not None})
        for one in teams_of(team)[1:]
        for config in agent_configs(one, ns, address, workers=workers, toolkit=toolkit.of(one.team), lane=lane)
    ]
    manager = manager_config(ns, address, job=job, lane=lane)
    return [manager.model_copy(update={"tree": bool(inner) and job is not None}), *agents, *inner]


def manager_config(
    ns: str, address: BrokerAddress, *, job: str | None = None, lane: int | None = None
) -> ProcessConfig:
    """Return the configuration of a manager, of one job or of all.

    :raises interlock.runtime.broker_errors.BrokerError: there are keys of agents, but not of managers
    """
    login = BrokerLogin.of(login_of(address, Party("manager"), lane))
    return ProcessConfig(kind="manager", name="manager", ns=ns, broker=login, job=job)


def api_config(ns: str, address: BrokerAddress, http: HttpSetup) -> ProcessConfig:
    """Return the configuration of the process of the HTTP API: it logs in as the operator, who it acts for."""
    return ProcessConfig(kind="api", name="api", ns=ns, broker=BrokerLogin.of(address), http=http)


def agent_configs(
    team: Team,
    ns: str,
    address: BrokerAddress,
    *,
    job: str | None = None,
    workers: int | None = None,
    toolkit: Toolkit = NO_TOOLKIT,
    lane: int | None = None,
    roles: Collection[Role] | None = None,
) -> list[ProcessConfig]:
    """Return the configurations as ``process_configs`` does, but without a manager, and only for ``roles`` if given.

    Without a ``job`` the processes are for any number of jobs at once, and carry their roles in their names.

    :raises interlock.runtime.broker_errors.BrokerError: there are keys of agents, but not of all these
    """
    used = [name for name in _agents_used(team) if roles is None or role_of(name, team.team) in roles]
    cores_each = (os.cpu_count() or 1) // max(1, sum(team.agents[name].kind == "worker" for name in used))
    configs: list[ProcessConfig] = []
    for name in used:
        agent, settings = team.agents[name], _settings(team, name) if _thinks(team, name) else None
        role, most = role_of(name, team.team), _most_at_once(team, name) if job else team.limits.parallel
        serial = settings is not None and CAPABILITIES[_engine_of(settings)].parallel == 1
        copies = min(workers or max(1, cores_each), most) if agent.kind == "worker" else 1
        copies = 1 if serial else copies
        kind: Literal["worker", "verifier", "team"] = "verifier" if agent.kind == "manager" else agent.kind
        broker = BrokerLogin.of(login_of(address, Party(kind, role), lane))
        configs += (
            ProcessConfig(
                kind=kind,
                name=f"{name if job else role}-{number}",
                ns=ns,
                broker=broker,
                job=job,
                team=team.team,
                agent_name=name,
                agent=agent.model_copy(update={"team": None}),  # what the job says of it counts
                model=settings,
                tools=_tool_setup(team, name, toolkit) if agent.kind == "worker" else None,
                home=_home(agent, toolkit),
                slots=1 if serial else max(1, math.ceil(team.limits.parallel / copies)),
            )
            for number in range(1, copies + 1)
        )
    return configs


def queues_of(team: Team) -> list[tuple[QueueKind, Role]]:
    """Return the queues of the agents that the plan names: of assignments for workers, of results for verifiers."""
    return sorted(
        ("result" if team.agents[name].kind == "verifier" else "assigned", role_of(name, team.team))
        for name in _agents_used(team)
    )


def roles_of(team: Team) -> list[Role]:
    """Return the roles of the agents that the plan names, in its order."""
    return [role_of(name, team.team) for name in _agents_used(team)]


def _home(agent: Agent, toolkit: Toolkit) -> Home:
    return toolkit.of(agent.team.team).home if isinstance(agent.team, Team) else Home()


def _tool_setup(team: Team, agent: str, toolkit: Toolkit) -> ToolSetup | None:
    """Return what the processes of ``agent`` need for the tools that the plan gives it; None where it gives none."""
    wanted = tool_names(team, agent)
    if not wanted:
        return None
    return ToolSetup(
        sources=team.tools,
        secrets=team.secrets,
        catalogue=tuple(spec for spec in toolkit.catalogue if spec.name in wanted),
        base=toolkit.base,
    )


def tool_names(team: Team, agent: str | None = None) -> frozenset[str]:
    """Return the tools that the plan gives to ``agent``, or to any; where it is yet to be made, those it may give."""
    uses = [
        use
        for step in team.plan
        for name in _workers_of(step)
        if agent is None or name == agent
        for use in uses_of(step, team.agents[name])
    ]
    if plans_by_itself(team):
        uses += [use for name, one in team.agents.items() if agent is None or name == agent for use in one.tools]
    return frozenset(tool_of(use) for use in uses)


def _workers_of(step: Step) -> list[str]:
    return [step.agent, *([step.on_failure.agent] if isinstance(step.on_failure, Handover) else [])]


def models_used(team: Team) -> list[tuple[str, ModelSettings]]:
    """Return the agents that think in a job of ``team``, or of a team within it, with the model of each.

    The manager is one of them where it may have to plan, also one that is no agent of the team file.
    """
    used = [(name, _settings(one, name)) for one in teams_of(team) for name in _agents_used(one) if _thinks(one, name)]
    return [*(manager_of(one) for one in teams_of(team) if plans_by_itself(one)), *used]


def _agents_used(team: Team) -> list[str]:
    """Return the workers and verifiers that the plan names, in its order; where it is yet to be made, all of them."""
    names: dict[str, None] = {}
    for step in team.plan:
        names[step.agent] = None
        if isinstance(step.on_failure, Handover):
            names[step.on_failure.agent] = None
        names[verifier_of(team, step)] = None
    if plans_by_itself(team):
        names |= dict.fromkeys(name for name, agent in team.agents.items() if agent.kind != "manager")
    return list(names)


def _thinks(team: Team, name: str) -> bool:
    """Whether an agent needs a model: a worker does, a verifier only as a judge."""
    if team.agents[name].kind == "worker":
        return True
    if plans_by_itself(team) and team.agents[name].kind == "verifier":
        return True  # whether anything is to be judged shows later
    judged = [step for step in team.plan if verifier_of(team, step) == name]
    return any(isinstance(criterion, JudgeCriterion) for step in judged for criterion in step.verify.criteria)


def _most_at_once(team: Team, worker: str) -> int:
    """Return how many tasks an agent can have at once; a list that is stored or made later may be of any length."""
    if plans_by_itself(team):
        return team.limits.parallel
    tasks = 0
    for step in team.plan:
        takes_over = isinstance(step.on_failure, Handover) and step.on_failure.agent == worker
        if step.agent == worker or takes_over:
            tasks += 1 if step.for_each is None else _length(step.for_each, team.limits.parallel)
    return max(1, min(tasks, team.limits.parallel))


def _length(for_each: object, unknown: int) -> int:
    return len(for_each) if isinstance(for_each, tuple) else unknown


def _settings(team: Team, name: str) -> ModelSettings:
    return team.agents[name].model or team.model


def _engine_of(settings: ModelSettings) -> Engine:
    return "openai" if os.environ.get(MODEL_URL_ENV) else settings.engine
