"""The paths of jobs: submit one, list them, report on one, and follow one as it goes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from interlock.protocol.messages import JobStatus
from interlock.runtime.api.access import job_for, may_see, team_for
from interlock.runtime.api.context import ApiContext, InContext
from interlock.runtime.api.events import EVENT_MODELS, Event, EventKind
from interlock.runtime.api.index import KnownJob
from interlock.runtime.api.keys import Caller, caller_with
from interlock.runtime.api.problems import (
    BodyTooLarge,
    InputsUnusable,
    JobDiffers,
    JobForbidden,
    JobUnknown,
    RequestInvalid,
    TeamUnknown,
    TeamUnusable,
    VersionTooOld,
    documented,
)
from interlock.runtime.api.schemas import JobAccepted, JobPage, JobRequest, JobSummary
from interlock.runtime.api.submitting import Wanted, submit_job
from interlock.runtime.report import Report

__all__ = ["EVENT_STREAM", "events", "frame_of", "list_jobs", "report", "router", "submit"]

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

EVENT_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers that keep everybody between here and the client from holding events back."""

_LARGEST = 2**53 - 1
"""The largest whole number that every JSON reader gets right."""

_RETRY = b"retry: 1000\n\n"
_HEARTBEAT = b": still there\n\n"

_EVENT = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "id": {"type": "string", "description": "The stream sequence: what `Last-Event-ID` and `after` take."},
        "event": {"enum": list(get_args(EventKind))},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"anyOf": [{"$ref": f"#/components/schemas/{one.__name__}"} for one in EVENT_MODELS]},
        },
    },
    "required": ["id", "event", "data"],
}

_Submitter = Annotated[Caller, Depends(caller_with("submit"))]
_Reader = Annotated[Caller, Depends(caller_with("read"))]
_After = Annotated[int, Query(ge=0, le=_LARGEST, description="Begin after the event with this id.")]
_LastEventId = Annotated[int | None, Header(ge=0, le=_LARGEST, description="The same; it wins over `after`.")]


@router.post(
    "",
    status_code=201,
    responses={
        200: {"model": JobAccepted, "description": "The job was submitted before."},
        201: {"headers": {"Location": {"description": "Where the job is.", "schema": {"type": "string"}}}},
        **documented(
            JobDiffers,
            JobForbidden,
            TeamUnusable,
            VersionTooOld,
            TeamUnknown,
            BodyTooLarge,
            InputsUnusable,
            RequestInvalid,
        ),
    },
)
async def submit(request: JobRequest, context: InContext, caller: _Submitter, response: Response) -> JobAccepted:
    """Give a job to a team that is up.

    The same again, with the same id, is the same job: sending it again is safe.
    """
    wanted = Wanted(
        await team_for(context, caller, request.team),
        request.goal,
        request.inputs,
        request.id,
        request.autonomy,
        request.budget,
        request.priority,
        request.approve_plan,
    )
    job, is_new = await submit_job(context, wanted)
    response.headers["Location"] = f"/v1/jobs/{job}"
    response.status_code = 201 if is_new else 200
    return JobAccepted(job_id=job, team=request.team)


@router.get("")
async def list_jobs(
    context: InContext,
    caller: _Reader,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: Annotated[int | None, Query(ge=0, le=_LARGEST, description="The `next` of the page before.")] = None,
    team: Annotated[str | None, Query(max_length=63)] = None,
    status: Annotated[JobStatus | None, Query()] = None,
) -> JobPage:
    """List jobs, newest first; a page at a time."""
    found: list[KnownJob] = []
    for known in context.jobs.newest(before):
        fits = team in {None, known.team} and status in {None, known.status}
        if fits and await may_see(context, caller, known):
            found.append(known)
            if len(found) > limit:
                break
    page = found[:limit]
    return JobPage(jobs=tuple(_summary(one) for one in page), next=page[-1].submitted if len(found) > limit else None)


@router.get("/{job}", response_model=Report, responses=documented(JobUnknown))
async def report(job: str, context: InContext, caller: _Reader) -> Response:
    """Report on a job as it stands now: the same as `interlock show JOB --json`.

    Of a job that was archived the tasks are left out.
    """
    known = await job_for(context, caller, job)
    written = await context.reports.report(known.job)
    small = written.small()
    if small is not None:
        return Response(small, media_type="application/json")
    headers = {"Content-Length": str(written.size)}
    return StreamingResponse(written.chunks(), headers=headers, media_type="application/json")


@router.get(
    "/{job}/events",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events, one for each entry of the job's log.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {"description": "The job is over, and there is nothing after this event: ask no more."},
        **documented(JobUnknown),
    },
)
async def events(
    job: str, context: InContext, caller: _Reader, after: _After = 0, last_event_id: _LastEventId = None
) -> Response:
    """Follow a job from its beginning, or from the event after the one that was seen last, until it is over."""
    known = await job_for(context, caller, job)
    since = after if last_event_id is None else last_event_id
    if since and await context.hub.is_over(known.job, since):
        return Response(status_code=204)
    return _EventsResponse(_stream(context, known.job, since))


class _EventsResponse(StreamingResponse):
    """A stream that is closed as soon as the client has hung up, wherever it was then."""

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        super().__init__(frames, headers=EVENT_STREAM, media_type="text/event-stream")
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and close the stream."""
        async with aclosing(self._frames):
            await super().__call__(scope, receive, send)


async def _stream(context: ApiContext, job: str, after: int) -> AsyncGenerator[bytes, None]:
    yield _RETRY
    async with context.hub.watching(job, after, idle=context.settings.heartbeat) as watch:
        async for batch in watch.batches:
            yield b"".join(frame_of(event) for event in batch) or _HEARTBEAT


def frame_of(event: Event) -> bytes:
    """Return an event as it goes over the wire."""
    return f"id: {event.seq}\nevent: {event.kind}\ndata: {event.text}\n\n".encode()


def _summary(known: KnownJob) -> JobSummary:
    return JobSummary(
        job_id=known.job,
        team=known.team,
        goal=known.goal,
        status=known.status or "running",
        reason=known.reason,
        parent=known.parent,
        submitted=known.at,
        ended=known.ended,
    )
