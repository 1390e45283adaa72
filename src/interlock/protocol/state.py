"""What is known of a job: frozen states of the job, its steps, its tasks and their attempts.

They are made by folding the log (``interlock.protocol.machine``) and read by whoever decides, reports or shows.
"""

from __future__ import annotations  # the map of rpds is generic for type checkers only

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from rpds import HashTrieMap, HashTrieSet

from interlock.protocol._replacing import replace
from interlock.protocol.base import Json, Usage, canonical_json
from interlock.protocol.items import StoredItems
from interlock.protocol.messages import (
    JOB_TASK,
    CriterionVerdict,
    JobClosed,
    JobSubmitted,
    Message,
    PlanProposed,
    PlanRejected,
    QuestionAnswered,
    QuestionAsked,
    TaskOutcome,
    TaskResult,
    TaskVerdict,
)
from interlock.protocol.plan import TaskIdInvalid, parse_task_id, task_id
from interlock.protocol.team import Step
from interlock.protocol.tools import EffectClass

__all__ = [
    "Attempt",
    "Effect",
    "EffectStatus",
    "Entry",
    "JobState",
    "Phase",
    "PlanVersion",
    "Question",
    "StepState",
    "TaskState",
    "is_known",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One message as it stands in the log."""

    seq: int
    """Stream sequence."""
    message: Message
    origin: str | None = None
    """W3C traceparent of the agent's span that the message was sent from."""


class Phase(Enum):
    """Where a task is in its chain: the kind of message that moved it last."""

    ASSIGNED = "assigned"
    ASKED = "asked"
    ANSWERED = "answered"
    RESULT = "result"
    VERDICT = "verdict"
    CLOSED = "closed"
    RETRIED = "retried"
    """It was closed and put back: it waits to be assigned again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt of a task came to so far."""

    number: int
    """From 1."""
    role: str
    verifier: str = ""
    """The role that judges its result."""
    result: TaskResult | None = None
    verdict: TaskVerdict | None = None
    origin: str | None = None
    """Traceparent of the worker's span."""

    @property
    def objections(self) -> tuple[CriterionVerdict, ...]:
        """The criteria that were not found to hold."""
        return tuple(c for c in self.verdict.criteria if c.holds is not True) if self.verdict else ()

    @property
    def fingerprint(self) -> str | None:
        """A digest that two attempts share exactly when their outputs are equal; None without an output."""
        if self.result is None or self.result.status != "done":
            return None
        return hashlib.sha256(canonical_json(self.result.output).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Question:
    """What a person was asked about a task, and what came of it."""

    asked: QuestionAsked
    answer: QuestionAnswered | None = None
    answered: int = 0
    """Stream sequence of the answer; 0 without one."""


class EffectStatus(Enum):
    """What is known of a change outside."""

    INTENDED = "intended"
    """It may have been begun: as long as nothing else is known it is in doubt."""
    DONE = "done"
    FAILED = "failed"
    """The tool said that it changed nothing."""
    IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class Effect:
    """A change outside that an attempt meant to make."""

    key: str
    task: str
    attempt: int
    tool: str
    effect: EffectClass
    follows: int
    """What the newest intent answers: who reports on an earlier one knows no later entry of the chain."""
    status: EffectStatus = EffectStatus.INTENDED
    reason: str = ""
    """Why it is in doubt."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task. ``attempts`` are in order and the last one is current."""

    id: str
    step: str
    index: int | None
    head: int
    """Stream sequence of the last entry of the task's chain."""
    phase: Phase
    attempts: tuple[Attempt, ...] = ()
    outcome: TaskOutcome | None = None
    stands: int | None = None
    """The attempt whose output is the task's."""
    reason: str = ""
    label: str = ""
    """What people call the task's item."""
    question: Question | None = None
    """The last one that was asked about the current attempt."""
    base: int = 0
    """How many attempts were made before the task was last put back: they count no more."""
    acts: bool = False
    """Whether it ever announced a change outside."""
    usage: Usage = field(default_factory=Usage)
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def current(self) -> Attempt:
        """The attempt that the chain is at. Only for a task that was ever assigned."""
        return self.attempts[-1]

    @property
    def roles(self) -> frozenset[str]:
        """Who was ever given the task."""
        return frozenset(attempt.role for attempt in self.attempts)

    @property
    def counting(self) -> tuple[Attempt, ...]:
        """The attempts since the task was last put back."""
        return self.attempts[self.base :]

    @property
    def output(self) -> Json:
        """The accepted output; None for a task that has none."""
        result = self.attempts[self.stands - 1].result if self.stands else None
        return result.output if result else None


@dataclass(frozen=True, slots=True)
class StepState:
    """How far the tasks of one step are."""

    spec: Step
    size: int | None
    """How many tasks the step has; None until a ``for_each`` was expanded."""
    next_index: int = 0
    """No task below this one is still to be assigned for the first time: each is known or settled."""
    settled: HashTrieSet[int] = field(default_factory=lambda: HashTrieSet(()))
    """The settled tasks from ``next_index`` on: few, since tasks begin in order."""
    settled_head: int = 0
    """Stream sequence that no settled task's chain reached beyond when it was settled."""
    settled_taint: tuple[str, ...] = ()
    """Where the text from outside comes from that the workers of settled tasks had before them."""
    stored: StoredItems | None = None
    """The items that the step was expanded to, where they stand in the object store."""
    open: int = 0
    """Tasks that are assigned and not closed."""
    accepted: int = 0
    failed: int = 0
    cancelled: int = 0
    redone: int = 0
    """Attempts beyond the first of each task."""
    blocked: str = ""
    """Why the step cannot run at all."""
    began: datetime | None = None
    """When its first task was assigned: what its seconds count from."""
    spent: str = ""
    """Which budget ran out so that nobody can ask a model for this step any more, in words; empty: none."""
    since: int = 1
    """The version of the plan that the step came with."""

    @property
    def closed(self) -> int:
        """Tasks that are closed, whatever the outcome."""
        return self.accepted + self.failed + self.cancelled

    @property
    def complete(self) -> bool:
        """Whether every task of the step is closed."""
        return self.size is not None and self.closed >= self.size

    @property
    def barren(self) -> bool:
        """Whether the step is over and has nothing that a step after it could use."""
        return self.complete and self.accepted == 0 and (self.size != 0 or bool(self.blocked))


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """A plan that was accepted."""

    version: int
    steps: tuple[str, ...]
    why: str = ""
    """What the manager says of it: with a later version what changed and why."""


@dataclass(frozen=True, slots=True)
class JobState:
    """One job. A fresh one is the state before the first entry."""

    submitted: JobSubmitted | None = None
    head: int = 0
    """Stream sequence of the last entry of the job's own chain."""
    version: int = 0
    """Of the accepted plan; 0 without one."""
    rejected: PlanRejected | None = None
    """The rejection that ends the job: of the plan in the team file, or of the one that it follows."""
    proposed: PlanProposed | None = None
    """What the manager's model has proposed and was neither accepted nor rejected yet."""
    proposals: int = 0
    """How often it proposed anything."""
    tries: int = 0
    """How many proposals were rejected since a plan was accepted last."""
    rejections: tuple[PlanRejected, ...] = ()
    """The rejections of proposals, oldest first."""
    question: Question | None = None
    """What a person was asked about the proposal at hand; it is open as long as it has no answer."""
    answers: tuple[Question, ...] = ()
    """The manager's questions that were answered, those about plans left out; oldest first."""
    plans: tuple[PlanVersion, ...] = ()
    """Every version of the plan that was accepted, the one that the job follows last."""
    dropped: HashTrieMap[str, StepState] = field(default_factory=lambda: HashTrieMap({}))
    """The steps of earlier versions that the plan does not have any more. Their tasks stay in ``tasks``."""
    spent: str = ""
    """Which budget ran out so that nobody in the job can ask a model any more, in words; empty: none that is known."""
    steps: HashTrieMap[str, StepState] = field(default_factory=lambda: HashTrieMap({}))
    order: tuple[str, ...] = ()
    """The steps as the plan lists them."""
    queue: tuple[str, ...] = ()
    """The steps whose tasks may begin, in the order in which the log made them ready, and the items that were put back.
    What is new comes last, so that managers with views of different age begin tasks in the same order and stay below
    ``limits.parallel`` together."""
    result_steps: tuple[str, ...] = ()
    tasks: HashTrieMap[str, TaskState] = field(default_factory=lambda: HashTrieMap({}))
    waiting: frozenset[str] = frozenset()
    """Tasks that the manager must move: with a verdict to answer, or with an entry that nobody else can follow."""
    strays: HashTrieMap[str, int] = field(default_factory=lambda: HashTrieMap({}))
    """Heads of the chains of tasks that never began, where something stands that is no beginning."""
    asking: frozenset[str] = frozenset()
    """Tasks that wait for a person."""
    effects: HashTrieMap[str, Effect] = field(default_factory=lambda: HashTrieMap({}))
    """Changes outside, by idempotency key."""
    reporters: HashTrieMap[str, frozenset[str]] = field(default_factory=lambda: HashTrieMap({}))
    """By task: the roles that may still tell what came of the changes of a settled one."""
    usage: Usage = field(default_factory=Usage)
    closed: JobClosed | None = None
    refused: int = 0
    """Entries that are no next step of their chain, and entries seen before."""
    disordered: bool = False
    """Whether an entry that puts tasks back was folded after one that follows it in the log. The state may then be
    wrong: fold the log again from the start."""
    origin: str | None = None
    """Traceparent of whoever submitted the job."""

    @property
    def open(self) -> int:
        """Tasks that are assigned and not closed."""
        return sum(step.open for step in self.steps.values())

    def head_of(self, task: str) -> int:
        """Return the sequence of the last entry of a chain, 0 where it has none; ``_`` is the job's own.

        The chain of a settled task is over and its end forgotten: what is returned is no less than it was.
        """
        if task == JOB_TASK:
            return self.head
        known = self.tasks.get(task)
        if known is not None:
            return known.head
        step = self.step_of_settled(task)
        return step.settled_head if step else self.strays.get(task, 0)

    def step_of_settled(self, task: str) -> StepState | None:
        """Return the step of a task that was settled, None where ``task`` is no such.

        What a settled task was is forgotten (``machine.settle``): it was accepted, and its chain is over.
        """
        if task in self.tasks or not self.steps:
            return None
        try:
            name, index = parse_task_id(task)
        except TaskIdInvalid:
            return None
        step = self.steps.get(name)
        return step if step and index is not None and self.has_begun(step, index) else None

    @property
    def steps_ever(self) -> tuple[str, ...]:
        """The steps of every version of the plan, in the order in which they came."""
        return tuple(dict.fromkeys(name for plan in self.plans for name in plan.steps))

    def step_known(self, name: str) -> StepState:
        """Return a step of the plan or of an earlier version of it.

        :raises KeyError: there never was such a step
        """
        return self.steps.get(name) or self.dropped[name]

    def has_begun(self, step: StepState, index: int | None) -> bool:
        """Return whether the log ever knew the task of ``step`` for an item: it is in ``tasks``, or settled."""
        return is_known(self.tasks, step, index)

    def ready(self, step: str) -> bool:
        """Return whether all that ``step`` needs is over."""
        return all(self.steps[need].complete for need in self.steps[step].spec.needs)

    def obstacle(self, step: str) -> str:
        """Return which need delivered nothing, or an empty string. Only for a step that is ready."""
        barren = [need for need in self.steps[step].spec.needs if self.steps[need].barren]
        return f"nothing was accepted of {', '.join(barren)}, which it needs" if barren else ""

    def may_begin(self, step: StepState, index: int | None) -> bool:
        """Return whether the task of ``step`` for an item was never known or was put back, and is not assigned."""
        known = self.tasks.get(task_id(step.spec.step, index))
        return known.phase is Phase.RETRIED if known else not self.has_begun(step, index)

    def queued(self) -> JobState:
        """Return the state with the steps appended to the queue whose tasks may begin from here on."""
        more = (
            name
            for name in self.order
            if name not in self.queue and self.steps[name].size and self.ready(name) and not self.obstacle(name)
        )
        return replace(self, queue=(*self.queue, *more))

    def open_tasks(self) -> Iterable[TaskState]:
        """Yield the tasks that are assigned and not closed."""
        return (task for task in self.tasks.values() if task.phase not in {Phase.CLOSED, Phase.RETRIED})

    def tasks_of(self, step: str) -> list[TaskState]:
        """Return the tasks of ``step`` that the log knows and that are not settled, in item order."""
        spec = self.steps[step]
        indices = [None] if spec.spec.for_each is None else range(spec.size or 0)
        ids = (task_id(step, index) for index in indices)
        return [self.tasks[one] for one in ids if one in self.tasks]


def is_known(tasks: Container[str], step: StepState, index: int | None) -> bool:
    """Return whether the task of ``step`` for an item is among ``tasks``, or settled."""
    if task_id(step.spec.step, index) in tasks:
        return True
    if index is None or step.spec.for_each is None or index >= (step.size or 0):
        return False
    return index < step.next_index or index in step.settled
