"""The account of a job: what ``--json`` prints, and what a person reads at the end."""

from typing import Literal

from interlock.observability.context import root_of, trace_id_of
from interlock.protocol.base import Json, Strict, Usage
from interlock.protocol.messages import CriterionVerdict, JobStatus, Verdict
from interlock.protocol.plan import task_id
from interlock.protocol.state import JobState, StepState, TaskState

__all__ = ["Report", "TaskReport", "VerdictReport", "report_of"]

_TaskStatus = Literal["accepted", "failed", "cancelled", "open", "waiting"]


class VerdictReport(Strict):
    """What the verifier said of one attempt."""

    attempt: int
    verdict: Verdict
    criteria: tuple[CriterionVerdict, ...]


class TaskReport(Strict):
    """One task."""

    id: str
    step: str
    index: int | None
    """Position of its item, from 0; None for a step without ``for_each``."""
    label: str
    """What people call its item, such as a path; empty where it has no name or never began."""
    agent: str
    """Who worked on it last, or would have."""
    status: _TaskStatus
    """``open`` is being worked on, ``waiting`` not begun; in a finished job what never began is ``cancelled``."""
    attempts: int
    verdicts: tuple[VerdictReport, ...]
    output: Json
    """Only of an accepted task."""
    reason: str
    """Why a task was not accepted."""


class Report(Strict):
    """One job."""

    job_id: str
    team: str
    goal: str
    status: JobStatus | Literal["running"]
    reason: str
    """What keeps the job from having succeeded; empty when nothing does."""
    result: Json
    tasks: tuple[TaskReport, ...]
    usage: Usage
    seconds: float
    """From submission to the end, by the clocks of who sent these two messages; 0 while the job runs."""
    trace_id: str
    """Of the one trace that the job has, 32 hexadecimal digits."""


def report_of(state: JobState) -> Report:
    """Return the account of a job that has been submitted."""
    if state.submitted is None:
        raise ValueError("a job that was not submitted has no report")
    closed = state.closed
    return Report(
        job_id=state.submitted.job,
        team=state.submitted.team.team,
        goal=state.submitted.goal,
        status=closed.status if closed else "running",
        reason=closed.reason if closed else "",
        result=closed.result if closed else None,
        tasks=tuple(task for name in state.order for task in _tasks(state, state.steps[name])),
        usage=state.usage,
        seconds=_seconds(state),
        trace_id=trace_id_of(state.origin or root_of(None, state.submitted.job)),
    )


def _tasks(state: JobState, step: StepState) -> list[TaskReport]:
    indices = [None] if step.spec.for_each is None else range(step.size or 0)
    return [_task(state, step, index) for index in indices]


def _task(state: JobState, step: StepState, index: int | None) -> TaskReport:
    identity = task_id(step.spec.step, index)
    task = state.tasks.get(identity)
    if task is None:
        return _unbegun(state, step, index, identity)
    return TaskReport(
        id=identity,
        step=task.step,
        index=index,
        label=task.label,
        agent=task.current.role.partition("@")[0] if task.attempts else step.spec.agent,
        status=task.outcome or ("cancelled" if state.closed else "open"),
        attempts=len(task.attempts),
        verdicts=_verdicts(task),
        output=task.output,
        reason=task.reason,
    )


def _unbegun(state: JobState, step: StepState, index: int | None, identity: str) -> TaskReport:
    closed = state.closed
    return TaskReport(
        id=identity,
        step=step.spec.step,
        index=index,
        label="",
        agent=step.spec.agent,
        status="cancelled" if closed else "waiting",
        attempts=0,
        verdicts=(),
        output=None,
        reason=f"not begun: {closed.reason}" if closed else "",
    )


def _verdicts(task: TaskState) -> tuple[VerdictReport, ...]:
    return tuple(
        VerdictReport(attempt=one.number, verdict=one.verdict.verdict, criteria=one.verdict.criteria)
        for one in task.attempts
        if one.verdict is not None
    )


def _seconds(state: JobState) -> float:
    if state.submitted is None or state.closed is None:
        return 0.0
    return round((state.closed.at - state.submitted.at).total_seconds(), 3)
