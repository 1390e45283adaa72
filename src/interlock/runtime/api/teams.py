"""The paths that say what is there: teams, whether the server lives, whether jobs are being worked on."""

from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from interlock.protocol.team import Team
from interlock.runtime.api.context import InContext
from interlock.runtime.api.keys import Caller, caller_with
from interlock.runtime.api.schemas import Health, Readiness, TeamAgent, TeamInput, TeamList, TeamSummary

__all__ = ["health_router", "healthz", "readyz", "router", "teams"]

router = APIRouter(prefix="/v1", tags=["teams"])
health_router = APIRouter(tags=["health"])


@router.get("/teams")
async def teams(context: InContext, caller: Annotated[Caller, Depends(caller_with("read"))]) -> TeamList:
    """List the teams that were brought up, with the inputs that they take."""
    published, there = await context.teams(), (await context.there()).teams
    visible = (one.team for name, one in sorted(published.items()) if caller.may_see(name))
    return TeamList(teams=tuple(_summary(team, there) for team in visible))


@health_router.get("/healthz")
async def healthz() -> Health:
    """Say that the server lives."""
    return Health()


@health_router.get(
    "/readyz",
    responses={503: {"model": Readiness, "description": "The broker is out of reach, or no manager is there."}},
)
async def readyz(context: InContext, response: Response) -> Readiness:
    """Say whether jobs are being worked on: the broker answers, and a manager is there."""
    there = await context.there()
    ready = there.broker and there.manager and context.jobs.is_ready
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, broker=there.broker, manager=there.manager)


def _summary(team: Team, there: Collection[str]) -> TeamSummary:
    return TeamSummary(
        team=team.team,
        description=team.description,
        inputs={
            name: TeamInput(type=one.type, description=one.description, required=one.required and one.default is None)
            for name, one in team.inputs.items()
        },
        agents={name: TeamAgent(kind=one.kind, description=one.description) for name, one in team.agents.items()},
        plans=not team.plan,
        up=team.team in there,
    )
