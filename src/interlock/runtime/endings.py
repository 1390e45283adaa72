"""The spans of the tasks and jobs that a manager has ended, also those that a killed manager took with it."""

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from interlock.observability.context import parse_traceparent
from interlock.observability.tracing import JobRecord, TaskRecord, Tracing
from interlock.protocol.messages import JobClosed, TaskClosed
from interlock.protocol.state import Entry, JobState, TaskState

__all__ = ["TAKEN_OVER", "Endings"]

TAKEN_OVER = timedelta(seconds=30)
"""How long after a manager's death another one has its jobs: a lease runs out after 5 s, and a start takes seconds."""

_WAITING = timedelta(seconds=2)
"""How old spans may get that still wait in a process: they are sent each second, and that takes a moment."""


class Endings:
    """Writes the spans of one job's endings.

    Whoever ends a task or a job writes its span; killed before it is sent, it is lost. So who takes up a job writes
    what was ended last before that again. Its ids are computed, so it is the same span.
    """

    def __init__(self, tracing: Tracing, root: str, now: Callable[[], datetime]) -> None:
        """``root`` is the context that the job hangs below, as ``Tracing.job_root`` returns it."""
        context = parse_traceparent(root)
        self._enabled = tracing.enabled and context is not None and context.sampled
        self._tracing = tracing
        self._root = root
        self._now = now
        self._found: deque[TaskRecord | JobRecord] | None = deque()
        """What others ended shortly before the newest ending; None once that was told."""

    def made(self, entry: Entry, state: JobState) -> None:
        """Write the span of what ``entry`` ends; only the manager whose message was taken does. ``state`` has it."""
        if self._enabled and (record := _record(entry, state)):
            self._tell(record)

    def found(self, entry: Entry, state: JobState) -> None:
        """Note what ``entry`` ended before this manager took the job up. ``state`` has it."""
        if not self._enabled or self._found is None or (record := _record(entry, state)) is None:
            return
        self._found.append(record)
        while self._found[0].ended < record.ended - _WAITING:
            self._found.popleft()

    def taken_up(self) -> None:
        """Write again what may have died with the manager before, unless that was too long ago; the first time only."""
        found, self._found = self._found, None
        if found and self._now() - found[-1].ended < TAKEN_OVER:
            for record in found:
                self._tell(record)

    def _tell(self, record: TaskRecord | JobRecord) -> None:
        if isinstance(record, TaskRecord):
            self._tracing.emit_task(self._root, record)
        else:
            self._tracing.emit_job(self._root, record)


def _record(entry: Entry, state: JobState) -> TaskRecord | JobRecord | None:
    """Return what is told of an entry that ended something; None for any other, also one that the machine refused."""
    match entry.message:
        case TaskClosed() as closed:
            task = state.tasks.get(closed.task)
            return _task_record(state, task, closed) if task is not None and task.head == entry.seq else None
        case JobClosed() as closed:
            return _job_record(state, closed) if state.closed == closed else None
        case _:
            return None


def _task_record(state: JobState, task: TaskState, closed: TaskClosed) -> TaskRecord:
    step = state.steps[task.step].spec
    return TaskRecord(
        job=closed.job,
        task=task.id,
        step=task.step,
        agent=task.current.role.partition("@")[0] if task.attempts else step.agent,
        started=task.began or closed.at,
        ended=closed.at,
        outcome=closed.outcome,
        attempts=len(task.attempts),
        reason=task.reason,
        redone={
            attempt.number: [objection.criterion for objection in attempt.objections]
            for attempt in task.attempts
            if attempt.number != task.stands and attempt.verdict is not None
        },
    )


def _job_record(state: JobState, closed: JobClosed) -> JobRecord:
    submitted = state.submitted
    return JobRecord(
        job=closed.job,
        team=submitted.team.team if submitted else "",
        started=submitted.at if submitted else closed.at,
        ended=closed.at,
        status=closed.status,
        reason=closed.reason,
    )
