"""The paths that kill and resume. The order is written before anything else; managers and supervisors obey it."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends

from interlock.protocol.control import AgentScope, AllScope, JobScope, Order, TeamScope
from interlock.runtime.api.access import job_for
from interlock.runtime.api.context import ApiContext, InContext
from interlock.runtime.api.keys import Caller, caller_with
from interlock.runtime.api.problems import JobUnknown, KeyLacksScope, KeyLacksTeams, TeamUnknown, documented
from interlock.runtime.api.schemas import KillRequest, OrderReport, ReasonRequest, ResumeRequest
from interlock.runtime.killing import reach_within
from interlock.runtime.killswitch import command

__all__ = ["kill", "kill_job", "resume", "resume_job", "router"]

router = APIRouter(prefix="/v1", tags=["kill"])

_Killer = Annotated[Caller, Depends(caller_with("kill"))]
_AnyScope = AllScope | TeamScope | JobScope | AgentScope

_NO_REASON = ReasonRequest()


@router.post("/jobs/{job}/kill", responses=documented(JobUnknown))
async def kill_job(
    job: str, context: InContext, caller: _Killer, request: Annotated[ReasonRequest, Body()] = _NO_REASON
) -> OrderReport:
    """Kill a job. It stays killed; the order stands once this is answered, and everything obeys it within a second."""
    known = await job_for(context, caller, job)
    return await _command(context, JobScope(job=known.job), stop=True, reason=request.reason)


@router.post("/jobs/{job}/resume", responses=documented(JobUnknown))
async def resume_job(job: str, context: InContext, caller: _Killer) -> OrderReport:
    """Lift the order that killed a job. A job that it ended stays ended."""
    known = await job_for(context, caller, job)
    return await _command(context, JobScope(job=known.job), stop=False)


@router.post("/kill", responses=documented(JobUnknown, TeamUnknown, KeyLacksTeams, KeyLacksScope))
async def kill(request: KillRequest, context: InContext, caller: _Killer) -> OrderReport:
    """Kill everything, the jobs of a team, a job, or an agent in every job."""
    await _check(context, caller, request.scope)
    return await _command(context, request.scope, stop=True, reason=request.reason)


@router.post("/resume", responses=documented(JobUnknown, TeamUnknown, KeyLacksTeams, KeyLacksScope))
async def resume(request: ResumeRequest, context: InContext, caller: _Killer) -> OrderReport:
    """Lift the kill order of just this scope: a team that was resumed stays killed where everything is."""
    await _check(context, caller, request.scope)
    return await _command(context, request.scope, stop=False)


async def _check(context: ApiContext, caller: Caller, scope: _AnyScope) -> None:
    """Look whether the caller's key is for a scope. A team need not be there: its jobs may be."""
    match scope:
        case AllScope():
            if caller.teams is not None:
                raise KeyLacksTeams
        case JobScope():
            await job_for(context, caller, scope.job)
        case TeamScope() | AgentScope():
            if not caller.may_see(scope.team):
                raise TeamUnknown


async def _command(context: ApiContext, scope: _AnyScope, *, stop: bool, reason: str = "") -> OrderReport:
    order = await command(context.bus, scope, stop=stop, reason=reason)
    if stop and isinstance(scope, TeamScope | AgentScope):  # jobs of other teams can be within theirs
        await reach_within(context.bus, order)
    return _told(order)


def _told(order: Order) -> OrderReport:
    said = order.order
    return OrderReport(epoch=order.epoch, stop=said.stop, scope=said.scope, reason=said.reason, at=said.at)
