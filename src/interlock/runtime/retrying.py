"""Dead letters: the tasks that failed for good, and putting them back into their jobs."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import AwareDatetime

from interlock.protocol.base import Strict
from interlock.protocol.messages import JobRetried
from interlock.protocol.retries import retry_objection
from interlock.protocol.state import JobState, Phase
from interlock.protocol.subjects import job_subjects
from interlock.runtime.archiving import is_away
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused
from interlock.runtime.client import read_job
from interlock.runtime.failures import Mistake
from interlock.runtime.lean import LeanFold
from interlock.runtime.questions import choose_job

__all__ = [
    "DeadLetter",
    "JobArchived",
    "NothingFailed",
    "RetryRefused",
    "dead_letters",
    "letters_of",
    "put_back",
]


class DeadLetter(Strict):
    """A task that failed for good."""

    job: str
    task: str
    label: str
    """What people call its item; empty where that has no name."""
    attempts: int
    reason: str
    when: AwareDatetime | None
    """When it was closed."""


class NothingFailed(Mistake):
    """A job is to be retried of which nothing failed."""

    def __init__(self, job: str) -> None:
        self.job = job
        super().__init__(f"nothing of job {job} failed, so there is nothing to put back")


class RetryRefused(Mistake):
    """Tasks that cannot be put back."""

    def __init__(self, job: str, objection: str) -> None:
        self.job = job
        self.objection = objection
        super().__init__(f"nothing of job {job} is put back: {objection}")


class JobArchived(Mistake):
    """A job is to be retried whose tasks were taken out of the log."""

    def __init__(self, job: str) -> None:
        self.job = job
        super().__init__(f"job {job} is archived and cannot go on: submit a new one")


def letters_of(state: JobState) -> list[DeadLetter]:
    """Return the dead letters of a job, in the order of the plan and of the items.

    What failed in a step that a later version of the plan does without is none: it was made up for, or given up.
    """
    failed = [
        task
        for task in state.tasks.values()
        if task.phase is Phase.CLOSED and task.outcome == "failed" and task.step in state.steps
    ]
    failed.sort(key=lambda task: (state.order.index(task.step), task.index or 0))
    job = state.submitted.job if state.submitted else ""
    return [
        DeadLetter(
            job=job,
            task=task.id,
            label=task.label,
            attempts=len(task.attempts),
            reason=task.reason,
            when=task.ended,
        )
        for task in failed
    ]


async def dead_letters(bus: Bus, job: str | None = None) -> list[DeadLetter]:
    """Return the dead letters of a job, named by its id or the beginning of it, or of all jobs, by job.

    :raises JobNotFound: there is no such job
    :raises JobAmbiguous: there are several
    :raises BusError: the broker cannot be reached
    """
    jobs = await bus.jobs()
    chosen = jobs if job is None else [choose_job(job, jobs)]
    return [letter for name in chosen for letter in letters_of(await read_job(bus, name))]


async def put_back(bus: Bus, job: str, tasks: Sequence[str] = (), reason: str = "") -> JobRetried:
    """Put tasks of a job back, all of its dead letters where none are named, and return what the log was told.

    :raises JobNotFound: there is no such job
    :raises JobAmbiguous: there are several
    :raises JobArchived: its tasks are not in the log any more
    :raises NothingFailed: no task is named and none failed
    :raises RetryRefused: a named task did not fail, is put back already, or nothing could come of it
    :raises BusError: the broker cannot be reached
    """
    name = choose_job(job, await bus.jobs())
    if await is_away(bus, name):
        raise JobArchived(name)
    while True:
        state = await read_job(bus, name)
        message = _retried(state, name, bus.ns, tasks, reason)
        try:
            seq = await bus.append(message)
        except AnswerRefused:
            continue  # the job has moved on: what it is now says whether the same is still wanted
        if await _was_followed(bus, name, seq):
            return message


def _retried(state: JobState, job: str, ns: str, tasks: Sequence[str], reason: str) -> JobRetried:
    now = datetime.now(UTC)
    chosen = tuple(dict.fromkeys(tasks)) or tuple(letter.task for letter in letters_of(state))
    if not chosen:
        raise NothingFailed(job)
    objection = retry_objection(state, chosen, now)
    if objection:
        raise RetryRefused(job, objection)
    return JobRetried(id=uuid.uuid4().hex, ns=ns, job=job, answers=state.head, at=now, tasks=chosen, reason=reason)


async def _was_followed(bus: Bus, job: str, seq: int) -> bool:
    """Return whether the entry put tasks back; a task that began just before it may have stood in its way."""
    lean = LeanFold()
    async with bus.follow([job_subjects(bus.ns, job)]) as batches:
        async for batch in batches:
            for entry in batch.entries:
                refused = lean.state.refused
                lean.take(entry)
                if entry.seq == seq:
                    return lean.state.refused == refused
            lean.forget()
    return False
