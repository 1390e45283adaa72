"""What a person's side of the log does: submit a job, watch it, read it again later."""

import logging
import secrets
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from interlock.observability.attributes import HEADER_ORIGIN, HEADER_ROOT
from interlock.observability.context import job_traceparent
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.budgets import narrower
from interlock.protocol.items import Priority, StoredItems
from interlock.protocol.machine import fold
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.state import Entry, JobState
from interlock.protocol.subjects import job_subjects, log_subject, submitted_subject
from interlock.protocol.team import Autonomy, Budget, Team
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused
from interlock.runtime.config import NO_TOOLKIT, Toolkit
from interlock.runtime.lean import LeanFold

__all__ = ["JobNotFound", "Progress", "history", "new_job_id", "read_job", "submit", "watch"]

_log = logging.getLogger(__name__)

_GLANCE = 0.1
"""Seconds between two looks of who only watches: what comes meanwhile is read in one go."""


class JobNotFound(LookupError):
    """No such job in the log."""

    def __init__(self, job: str, known: Sequence[str]) -> None:
        self.job = job
        listed = f"; there are {', '.join(known)}" if known else "; there are none"
        super().__init__(f"no job {job!r} in the log{listed}")


@dataclass(frozen=True, slots=True)
class Progress:
    """News of a job: the entries that came in and the state after them."""

    entries: tuple[Entry, ...]
    state: JobState


def new_job_id(team: str) -> str:
    """Return an id for a new job: the team's name and eight random hexadecimal digits."""
    return f"{team}-{secrets.token_hex(4)}"


async def submit(  # noqa: PLR0913 -- all that a job is given; most may be left out
    bus: Bus,
    tracing: Tracing,
    team: Team,
    goal: str,
    inputs: dict[str, Json],
    job: str,
    *,
    autonomy: Autonomy | None = None,
    budget: Budget | None = None,
    toolkit: Toolkit = NO_TOOLKIT,
    items: Mapping[str, StoredItems] | None = None,
    stored: Mapping[str, StoredItems] | None = None,
    priority: Priority = "normal",
    approve_plan: bool = False,
) -> bool:
    """Append the job to the log and return True; return False where it is there, since an id is one job for ever.

    ``autonomy`` is the team's unless another is given, ``budget`` narrows the team's; ``items`` and ``stored`` are as
    in ``JobSubmitted``.

    :raises BrokerUnreachable: the broker cannot be reached; there is no job
    :raises AppendInDoubt: the connection broke; submit the same id again to be sure that there is one
    :raises LogFull: the log has no room for a job
    :raises BodyTooLarge: team and inputs together are too much
    """
    message = JobSubmitted(
        id=uuid.uuid4().hex,
        ns=bus.ns,
        job=job,
        at=datetime.now(UTC),
        team=team,
        goal=goal,
        inputs=inputs,
        budget=narrower(team.budget, budget) if budget else team.budget,
        autonomy=autonomy or team.autonomy,
        tools=toolkit.catalogue,
        base=toolkit.base,
        items=dict(items or {}),
        stored=dict(stored or {}),
        priority=priority,
        approve_plan=approve_plan,
    )
    root = tracing.new_traceparent()
    parent = job_traceparent(root, job)
    with tracing.publish("job.submitted", log_subject(message), parent, message_id=message.id) as headers:
        try:
            await bus.append(message, headers={**headers, HEADER_ROOT: root, HEADER_ORIGIN: root})
        except AnswerRefused:
            _log.info("job %s was submitted before", job)
            return False
    return True


async def watch(bus: Bus, job: str) -> AsyncGenerator[Progress, None]:
    """Yield the news of a job from its beginning on, until it is closed.

    The state of a job of many tasks has no more of those that are over than ``lean`` keeps, and of those that the
    entries at hand ended.
    """
    lean = LeanFold()
    async with bus.follow([job_subjects(bus.ns, job)], pause=_GLANCE) as batches:
        async for batch in batches:
            lean.take_all(batch.entries)
            yield Progress(tuple(batch.entries), lean.state)
            if lean.state.closed is not None and batch.pending == 0:
                return
            lean.forget()


async def read_job(bus: Bus, job: str) -> JobState:
    """Return the state of a job as the log has it now; of many tasks that are over it has what ``lean`` keeps.

    :raises JobNotFound: it is not in the log
    """
    if await bus.last(submitted_subject(bus.ns, job)) is None:
        raise JobNotFound(job, await bus.jobs())
    return await _read(bus, job)


async def history(bus: Bus, job: str) -> AsyncGenerator[Progress, None]:
    """Yield all that the log has of a job now, from its beginning on, and forget nothing."""
    state = JobState()
    async with bus.follow([job_subjects(bus.ns, job)]) as batches:
        async for batch in batches:
            state = fold(batch.entries, state)
            yield Progress(tuple(batch.entries), state)
            if batch.pending == 0:
                return


async def _read(bus: Bus, job: str) -> JobState:
    lean = LeanFold()
    async with bus.follow([job_subjects(bus.ns, job)]) as batches:
        async for batch in batches:
            lean.take_all(batch.entries)
            lean.forget()
            if batch.pending == 0:
                break
    return lean.state
