"""What watchers are told of a job: one event for each entry of its log, and nothing that only agents need."""

from dataclasses import dataclass
from typing import Any, Literal

import pydantic_core
from pydantic import AwareDatetime

from interlock.protocol.base import Json, Strict, Usage
from interlock.protocol.messages import (
    Approval,
    CriterionVerdict,
    EffectDone,
    EffectInDoubt,
    EffectIntended,
    JobClosed,
    JobRetried,
    JobStatus,
    JobSubmitted,
    Message,
    PlanAccepted,
    PlanExpanded,
    PlanProposed,
    PlanRejected,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
    TaskOutcome,
    TaskResult,
    TaskVerdict,
    Verdict,
)
from interlock.protocol.plan import TaskIdInvalid, parse_task_id
from interlock.protocol.state import Entry

__all__ = [
    "EVENT_MODELS",
    "ClosedEvent",
    "EffectEvent",
    "Event",
    "EventKind",
    "JobEvent",
    "PlanEvent",
    "PlannedStep",
    "QuestionEvent",
    "TaskEvent",
    "event_of",
]

EventKind = Literal["job", "plan", "task", "question", "effect", "closed"]

_OVERHEAD = 200
"""Bytes that an event takes besides its text, about."""


class _Data(Strict):
    job_id: str
    at: AwareDatetime


class JobEvent(_Data):
    """The job was submitted, or tasks of it were put back after it was over."""

    what: Literal["submitted", "retried"]
    team: str | None = None
    goal: str | None = None
    tasks: tuple[str, ...] = ()
    """Those that were put back."""


class PlannedStep(Strict):
    """A step of a plan."""

    step: str
    agent: str
    needs: tuple[str, ...]
    for_each: bool
    """Whether it has a task for each item of a list."""


class PlanEvent(_Data):
    """A plan was proposed, accepted or rejected, or it became known how many tasks a step has."""

    what: Literal["proposed", "accepted", "rejected", "expanded"]
    version: int | None = None
    steps: tuple[PlannedStep, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why it was rejected."""
    text: str | None = None
    """Instead of a plan: an answer, a question or a refusal; with a new version why there is one."""
    step: str | None = None
    items: int | None = None


class TaskEvent(_Data):
    """An attempt of a task was begun, claims to be done, was judged; or the task is over."""

    what: Literal["assigned", "result", "verdict", "closed"]
    task: str
    step: str
    index: int | None
    """Position of its item, from 0; null for a step without ``for_each``."""
    attempt: int
    label: str | None = None
    agent: str | None = None
    """Who works on it, or judged it."""
    status: Literal["done", "gave_up", "needs_input"] | None = None
    """With ``result``: what the worker claims."""
    output: Json = None
    """With ``result``; it stands where the task is closed as accepted and ``stands`` is this attempt."""
    verdict: Verdict | None = None
    criteria: tuple[CriterionVerdict, ...] = ()
    outcome: TaskOutcome | None = None
    """With ``closed``."""
    stands: int | None = None
    reason: str | None = None


class QuestionEvent(_Data):
    """A person is asked, or answered."""

    what: Literal["asked", "answered"]
    id: str
    task: str
    by: str | None = None
    about: Literal["approval", "doubt", "input", "plan"] | None = None
    text: str | None = None
    approval: Approval | None = None
    options: tuple[str, ...] = ()
    default: str | None = None
    expires: AwareDatetime | None = None
    answer: str | None = None
    by_default: bool | None = None
    """Whether nobody answered in time."""
    note: str | None = None


class EffectEvent(_Data):
    """A change outside is about to be made, was made, or may have been made."""

    what: Literal["intended", "done", "failed", "in_doubt"]
    task: str
    attempt: int
    key: str
    tool: str | None = None
    reason: str | None = None


class ClosedEvent(_Data):
    """The job is over."""

    status: JobStatus
    result: Json
    reason: str
    usage: Usage


EVENT_MODELS = (JobEvent, PlanEvent, TaskEvent, QuestionEvent, EffectEvent, ClosedEvent)
"""What the data of events can be, in the order of ``EventKind``."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's log, as watchers are told it."""

    seq: int
    """Its stream sequence: whoever was told it goes on after it."""
    kind: EventKind
    text: str
    """What there is to say of it, as one line of JSON."""

    @property
    def data(self) -> dict[str, Any]:
        """What there is to say of it."""
        found: dict[str, Any] = pydantic_core.from_json(self.text)
        return found

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return len(self.text) + _OVERHEAD


def event_of(entry: Entry) -> Event | None:
    """Return what watchers are told of an entry; None where that is nothing."""
    found = _described(entry.message)
    if found is None:
        return None
    kind, data = found
    return Event(entry.seq, kind, data.model_dump_json(exclude_defaults=True))


def _described(message: Message) -> tuple[EventKind, _Data] | None:
    match message:
        case JobSubmitted():
            return "job", JobEvent(
                job_id=message.job, at=message.at, what="submitted", team=message.team.team, goal=message.goal
            )
        case JobRetried():
            return "job", JobEvent(job_id=message.job, at=message.at, what="retried", tasks=tuple(message.tasks))
        case JobClosed():
            return "closed", ClosedEvent(
                job_id=message.job,
                at=message.at,
                status=message.status,
                result=message.result,
                reason=message.reason,
                usage=message.usage,
            )
        case PlanProposed() | PlanAccepted() | PlanRejected() | PlanExpanded():
            return "plan", _plan(message)
        case TaskAssigned() | TaskResult() | TaskVerdict() | TaskClosed():
            return "task", _task(message)
        case QuestionAsked() | QuestionAnswered():
            return "question", _question(message)
        case EffectIntended() | EffectDone() | EffectInDoubt():
            return "effect", _effect(message)
        case _:
            return None


def _plan(message: PlanProposed | PlanAccepted | PlanRejected | PlanExpanded) -> PlanEvent:
    about: dict[str, Any] = {"job_id": message.job, "at": message.at}
    match message:
        case PlanProposed():
            text = message.text or message.unreadable or None
            steps = _steps(message)
            return PlanEvent(**about, what="proposed", version=message.version, steps=steps, text=text)
        case PlanAccepted():
            return PlanEvent(**about, what="accepted", version=message.version, steps=_steps(message))
        case PlanRejected():
            return PlanEvent(**about, what="rejected", version=message.version, reasons=message.reasons)
        case PlanExpanded():
            return PlanEvent(
                **about, what="expanded", step=message.step, items=message.items, text=message.reason or None
            )


def _steps(message: PlanProposed | PlanAccepted) -> tuple[PlannedStep, ...]:
    return tuple(
        PlannedStep(step=one.step, agent=one.agent, needs=one.needs, for_each=one.for_each is not None)
        for one in message.steps
    )


def _task(message: TaskAssigned | TaskResult | TaskVerdict | TaskClosed) -> TaskEvent:
    step, index = _place(message.task)
    about: dict[str, Any] = {
        "job_id": message.job,
        "at": message.at,
        "task": message.task,
        "step": step,
        "index": index,
        "attempt": message.attempt,
    }
    match message:
        case TaskAssigned():
            agent = message.role.partition("@")[0]
            return TaskEvent(**about, what="assigned", label=message.label or None, agent=agent)
        case TaskResult():
            agent, reason = message.by.partition("@")[0], message.reason or None
            return TaskEvent(
                **about, what="result", agent=agent, status=message.status, output=message.output, reason=reason
            )
        case TaskVerdict():
            agent = message.by.partition("@")[0]
            return TaskEvent(**about, what="verdict", agent=agent, verdict=message.verdict, criteria=message.criteria)
        case TaskClosed():
            reason = message.reason or None
            return TaskEvent(**about, what="closed", outcome=message.outcome, stands=message.stands, reason=reason)


def _place(task: str) -> tuple[str, int | None]:
    try:
        return parse_task_id(task)
    except TaskIdInvalid:
        return task, None


def _question(message: QuestionAsked | QuestionAnswered) -> QuestionEvent:
    about: dict[str, Any] = {"job_id": message.job, "at": message.at, "id": message.question, "task": message.task}
    if isinstance(message, QuestionAnswered):
        return QuestionEvent(
            **about, what="answered", answer=message.answer, by_default=message.by_default, note=message.note or None
        )
    return QuestionEvent(
        **about,
        what="asked",
        by=message.by,
        about=message.about,
        text=message.text,
        approval=message.approval,
        options=message.options,
        default=message.default,
        expires=message.expires,
    )


def _effect(message: EffectIntended | EffectDone | EffectInDoubt) -> EffectEvent:
    about: dict[str, Any] = {
        "job_id": message.job,
        "at": message.at,
        "task": message.task,
        "attempt": message.attempt,
        "key": message.key,
    }
    match message:
        case EffectIntended():
            return EffectEvent(**about, what="intended", tool=message.tool)
        case EffectDone():
            return EffectEvent(**about, what="failed" if message.failed else "done")
        case EffectInDoubt():
            return EffectEvent(**about, what="in_doubt", reason=message.reason)
