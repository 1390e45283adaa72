"""The job that does the work of a task whose agent is a team: what it is given, and what its end says of the task.

Everything narrows on the way down: time, budget, autonomy, rules. Nothing here knows a clock or makes an id.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any, Literal

from interlock.agents.answers import NotJson, parse_json
from interlock.protocol.base import Json, Strict
from interlock.protocol.budgets import later, narrower
from interlock.protocol.lineage import child_job, depth_of
from interlock.protocol.messages import Allowance, Bounds, JobClosed, JobSubmitted, TaskAssigned
from interlock.protocol.team import Autonomy, Budget, Team
from interlock.protocol.tools import ToolSpec

__all__ = ["Ended", "Home", "NoSuchTeam", "bounds_of", "child_of", "ended", "inner_teams", "teams_of", "too_deep"]

_CAUTION: Sequence[Autonomy] = ("suggest", "ask", "bounded")
"""The most cautious first."""


class NoSuchTeam(LookupError):
    """A task was given to an agent that is no team in the job's own record of its team."""

    def __init__(self, agent: str, team: str) -> None:
        self.agent = agent
        self.team = team
        super().__init__(f"agent {agent} of team {team} is no team in the job that the task is of")


class Home(Strict):
    """Where a team's tools are, on the machines that work for it."""

    tools: tuple[ToolSpec, ...] = ()
    base: str = "/"
    """The absolute folder of the team file."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What the end of a child says of the task that it did the work of."""

    status: Literal["done", "gave_up"]
    output: Json
    reason: str


def inner_teams(team: Team) -> Iterator[tuple[str, Team]]:
    """Yield the agents of ``team`` that are teams, with these."""
    for name, agent in team.agents.items():
        if isinstance(agent.team, Team):
            yield name, agent.team


def teams_of(team: Team) -> tuple[Team, ...]:
    """Return ``team`` and all teams within it at any depth, each name once, itself first."""
    found = {team.team: team}
    for _, inner in inner_teams(team):
        for one in teams_of(inner):
            found.setdefault(one.team, one)
    return tuple(found.values())


def too_deep(root: JobSubmitted, job: str) -> str:
    """Return why ``job`` may not be begun below ``root``, the outermost job that it is a part of; empty: it may."""
    depth, most = depth_of(job), root.team.limits.depth
    if depth <= most:
        return ""
    return f"it would be a job at level {depth}, and limits.depth of team {root.team.team} allows {most}"


def bounds_of(parent: JobSubmitted, assignment: TaskAssigned, agent: str) -> tuple[Bounds, ...]:
    """Return what binds the child: all that binds its parent, and what its parent's team lays down for this task."""
    team = parent.team
    own = Bounds(
        team=team.team,
        agent=agent,
        permissions=(team.permissions, team.agents[agent].permissions, assignment.grant.permissions),
        principles=team.principles,
        base=parent.base,
    )
    return (*parent.bounds, own)


def child_of(
    parent: JobSubmitted, assignment: TaskAssigned, agent: str, home: Home, *, message_id: str, at: datetime
) -> JobSubmitted:
    """Return the job that does the work of one attempt.

    :raises NoSuchTeam: ``agent`` is none
    """
    team = parent.team.agents[agent].team if agent in parent.team.agents else None
    if not isinstance(team, Team):
        raise NoSuchTeam(agent, parent.team.team)
    autonomy: Autonomy = min((assignment.grant.autonomy, team.autonomy), key=_CAUTION.index)
    return JobSubmitted(
        id=message_id,
        ns=parent.ns,
        job=child_job(parent.job, assignment.task, assignment.attempt),
        at=at,
        deadline=min(filter(None, (assignment.deadline, later(at, assignment.grant.seconds))), default=None),
        epoch=parent.epoch,
        team=team,
        goal=_goal(assignment),
        inputs=_inputs(team, assignment),
        budget=_narrowed(team.budget, assignment.allowances),
        autonomy=autonomy,
        parent=parent.job,
        tools=home.tools,
        base=home.base,
        priority=parent.priority,
        bounds=bounds_of(parent, assignment, agent),
        approve_plan=parent.approve_plan,
        taint=assignment.taint,
        allowances=assignment.allowances,
    )


def ended(closed: JobClosed, schema: dict[str, Json] | None) -> Ended:
    """Return what a child came to, its result in the form that the task asks for as far as it can be brought into it.

    What is not whole is no result: it is told with the reason, and the step's attempts decide what follows.
    """
    output = _shaped(closed.result, schema)
    if closed.status == "succeeded":
        return Ended("done", output, "")
    reason = f"job {closed.job} ended {closed.status}" + (f": {closed.reason}" if closed.reason else "")
    return Ended("gave_up", output, reason)


def _goal(assignment: TaskAssigned) -> str:
    """Return the instruction, and why what was made of it before did not do."""
    objections = [f"- {line}" for feedback in assignment.feedback[-1:] for line in _objections(feedback.criteria)]
    if not objections:
        return assignment.instruction
    return "\n".join((assignment.instruction, "", "An earlier attempt was not accepted:", *objections))


def _objections(criteria: Iterable[Any]) -> Iterator[str]:
    for one in criteria:
        yield " ".join(filter(None, (f"{one.criterion}: {one.evidence}", one.change)))


def _inputs(team: Team, assignment: TaskAssigned) -> dict[str, Json]:
    """Return what was given, and for what was not the default; what is not there at all is None."""
    defaults = {name: spec.default for name, spec in team.inputs.items()}
    return {**defaults, **assignment.inputs}


def _narrowed(own: Budget, allowances: Iterable[Allowance]) -> Budget:
    """Return the narrower of what the team allows itself and what is allowed to the task."""
    return reduce(narrower, (Budget(calls=one.calls, tokens=one.tokens) for one in allowances), own)


def _shaped(result: Json, schema: dict[str, Json] | None) -> Json:
    if schema is None:
        return result if isinstance(result, str) or result is None else json.dumps(result, ensure_ascii=False)
    if isinstance(result, dict) or result is None:
        return result
    fields = schema.get("properties")
    if isinstance(result, str):
        try:
            found = parse_json(result)
        except NotJson:
            found = None
        if isinstance(found, dict):
            return found
    return {next(iter(fields)): result} if isinstance(fields, dict) and len(fields) == 1 else result
