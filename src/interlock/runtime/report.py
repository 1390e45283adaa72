"""The account of a job: what ``--json`` prints, and what a person reads at the end."""

from collections.abc import Iterator
from typing import Literal

from pydantic import AwareDatetime

from interlock.observability.context import root_of, trace_id_of
from interlock.protocol.base import Json, Strict, Usage
from interlock.protocol.lineage import child_job
from interlock.protocol.messages import ActionTaken, Approval, CriterionVerdict, JobStatus, QuestionAsked, Verdict
from interlock.protocol.plan import task_id
from interlock.protocol.state import Effect, EffectStatus, JobState, Phase, StepState, TaskState
from interlock.protocol.team import Engine
from interlock.protocol.tools import EffectClass
from interlock.runtime.lean import size_of
from interlock.runtime.plan_report import PlanReport, plan_report

__all__ = [
    "ActionReport",
    "EffectReport",
    "EffectsReport",
    "EngineReport",
    "Listed",
    "PrefixCacheReport",
    "QuestionReport",
    "Report",
    "TaskReport",
    "VerdictReport",
    "listed_of",
    "overview_of",
    "question_report",
    "report_of",
    "task_report",
    "unbegun_report",
]

_TaskStatus = Literal["accepted", "failed", "cancelled", "open", "asking", "waiting"]


class VerdictReport(Strict):
    """What the verifier said of one attempt."""

    attempt: int
    verdict: Verdict
    criteria: tuple[CriterionVerdict, ...]


class ActionReport(ActionTaken):
    """What an attempt did with a tool."""

    attempt: int


class QuestionReport(Strict):
    """What a person is asked."""

    job: str
    id: str
    task: str
    label: str
    """What people call the task's item; empty where it has no name."""
    attempt: int
    by: str
    """Who asks, as ``agent@team``."""
    about: Literal["approval", "doubt", "input", "plan"]
    text: str
    """What is to be decided, and why it is asked."""
    approval: Approval | None
    """The call that it is about."""
    options: tuple[str, ...]
    """Empty: free text."""
    default: str | None
    """What counts as the answer after ``expires``; None: a no."""
    asked: AwareDatetime
    expires: AwareDatetime | None
    """None: it waits as long as the job does."""


class EffectReport(Strict):
    """A change outside."""

    tool: str
    task: str
    attempt: int
    """The attempt that meant to make it last."""
    key: str
    """Its idempotency key."""
    effect: EffectClass
    reason: str
    """Why it is in doubt; empty for what is done."""


class EffectsReport(Strict):
    """What a job changed outside, as far as the log tells."""

    done: tuple[EffectReport, ...]
    in_doubt: tuple[EffectReport, ...]
    """What may have been made: nobody knows."""


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
    """``open`` is being worked on, ``asking`` waits for a person, ``waiting`` is not begun; in a finished job what
    never began is ``cancelled``."""
    attempts: int
    verdicts: tuple[VerdictReport, ...]
    actions: tuple[ActionReport, ...]
    """What its attempts did with tools, as they told it with their results; oldest first."""
    question: QuestionReport | None
    """What it waits with."""
    output: Json
    """Only of an accepted task."""
    reason: str
    """Why a task was not accepted."""
    jobs: tuple[str, ...] = ()
    """Where a team does it: the jobs that its attempts are, oldest first."""


class PrefixCacheReport(Strict):
    """How much of the prompts an engine had read before, in tokens."""

    queries: int
    """Tokens that were looked up."""
    hits: int
    """Those of them that were found."""
    share: float | None
    """``hits`` of ``queries``, from 0 to 1; None: nothing was looked up."""


class EngineReport(Strict):
    """What the vLLM servers told of a job while it ran here; what others asked them meanwhile is in it."""

    name: Engine
    models: tuple[str, ...]
    """Names of the models; empty text: the first that the server lists."""
    prefix_cache: PrefixCacheReport
    """From the beginning of the job to its end."""
    running: int
    """Requests that were being answered at the end."""
    waiting: int
    """Requests that waited at the end."""


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
    """Those of all versions of the plan."""
    question: QuestionReport | None
    """What the manager waits with."""
    plan: PlanReport
    effects: EffectsReport
    usage: Usage
    seconds: float
    """From submission to the end, by the clocks of who sent these two messages; 0 while the job runs."""
    trace_id: str
    """Of the one trace that the job has, 32 hexadecimal digits."""
    engine: EngineReport | None = None
    """Only of a job that ran here, and thought with vLLM."""


class Listed(Strict):
    """One job in a list."""

    report: Report
    """Without its tasks."""
    accepted: int | None
    """Tasks that were accepted; None: it is archived, and only the archive knows."""
    tasks: int
    """All tasks, as far as they are counted."""
    asking: int
    """Tasks that wait for a person, and the manager if it does."""


def listed_of(state: JobState) -> Listed:
    """Return what a list of jobs says of one that has been submitted; the state may be a lean one."""
    steps = state.steps.values()
    return Listed(
        report=overview_of(state, ()),
        accepted=sum(step.accepted for step in steps),
        tasks=size_of(state),
        asking=0 if state.closed else len(state.asking) + (_managers_question(state) is not None),
    )


def report_of(state: JobState) -> Report:
    """Return the account of a job that has been submitted, of which nothing was forgotten."""
    steps = map(state.step_known, state.steps_ever)
    return overview_of(state, tuple(task for step in steps for task in _tasks(state, step)))


def overview_of(state: JobState, tasks: tuple[TaskReport, ...]) -> Report:
    """Return the account of a job that has been submitted with these of its tasks; the state may be a lean one."""
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
        tasks=tasks,
        question=_managers_question(state),
        plan=plan_report(state),
        effects=EffectsReport(
            done=tuple(_effects(state, EffectStatus.DONE)),
            in_doubt=tuple(_effects(state, EffectStatus.IN_DOUBT, EffectStatus.INTENDED)),
        ),
        usage=state.usage,
        seconds=_seconds(state),
        trace_id=trace_id_of(state.origin or root_of(None, state.submitted.job)),
    )


def _managers_question(state: JobState) -> QuestionReport | None:
    open_one = state.question if state.question and state.question.answer is None and not state.closed else None
    return question_report(open_one.asked, "") if open_one else None


def _tasks(state: JobState, step: StepState) -> list[TaskReport]:
    indices = [None] if step.spec.for_each is None else range(step.size or 0)
    return [_task(state, step, index) for index in indices]


def _task(state: JobState, step: StepState, index: int | None) -> TaskReport:
    task = state.tasks.get(task_id(step.spec.step, index))
    return unbegun_report(state, step, index) if task is None else task_report(state, task)


def task_report(state: JobState, task: TaskState) -> TaskReport:
    """Return the account of a task that the job's log knows."""
    return TaskReport(
        id=task.id,
        step=task.step,
        index=task.index,
        label=task.label,
        agent=task.current.role.partition("@")[0] if task.attempts else state.step_known(task.step).spec.agent,
        status=task.outcome or _status_while_open(state, task),
        attempts=len(task.attempts),
        verdicts=_verdicts(task),
        actions=tuple(_actions(task)),
        question=_open_question(state, task),
        output=task.output,
        reason=task.reason,
        jobs=tuple(_jobs(state, task)),
    )


def unbegun_report(state: JobState, step: StepState, index: int | None) -> TaskReport:
    """Return the account of a task that the job's log does not know."""
    closed = state.closed
    return TaskReport(
        id=task_id(step.spec.step, index),
        step=step.spec.step,
        index=index,
        label="",
        agent=step.spec.agent,
        status="cancelled" if closed else "waiting",
        attempts=0,
        verdicts=(),
        actions=(),
        question=None,
        output=None,
        reason=f"not begun: {closed.reason}" if closed else "",
    )


def _jobs(state: JobState, task: TaskState) -> Iterator[str]:
    agents = state.submitted.team.agents if state.submitted else {}
    for attempt in task.attempts:
        agent = agents.get(attempt.role.partition("@")[0])
        if state.submitted is not None and agent is not None and agent.kind == "team":
            yield child_job(state.submitted.job, task.id, attempt.number)


def _verdicts(task: TaskState) -> tuple[VerdictReport, ...]:
    return tuple(
        VerdictReport(attempt=one.number, verdict=one.verdict.verdict, criteria=one.verdict.criteria)
        for one in task.attempts
        if one.verdict is not None
    )


def _status_while_open(state: JobState, task: TaskState) -> _TaskStatus:
    if state.closed:
        return "cancelled"
    return "asking" if task.phase is Phase.ASKED else "open"


def _actions(task: TaskState) -> Iterator[ActionReport]:
    for attempt in task.attempts:
        for action in attempt.result.actions if attempt.result else ():
            yield ActionReport(attempt=attempt.number, **dict(action))


def _open_question(state: JobState, task: TaskState) -> QuestionReport | None:
    if task.question is None or task.phase is not Phase.ASKED or state.closed:
        return None
    return question_report(task.question.asked, task.label)


def question_report(asked: QuestionAsked, label: str) -> QuestionReport:
    """Return what a person is told of a question about the task that people call ``label``."""
    return QuestionReport(
        job=asked.job,
        id=asked.question,
        task=asked.task,
        label=label,
        attempt=asked.attempt,
        by=asked.by,
        about=asked.about,
        text=asked.text,
        approval=asked.approval,
        options=asked.options,
        default=asked.default,
        asked=asked.at,
        expires=asked.expires,
    )


def _effects(state: JobState, *statuses: EffectStatus) -> Iterator[EffectReport]:
    for effect in sorted(state.effects.values(), key=lambda one: (one.task, one.follows)):
        if effect.status in statuses and not _under_way(state, effect):
            yield EffectReport(
                tool=effect.tool,
                task=effect.task,
                attempt=effect.attempt,
                key=effect.key,
                effect=effect.effect,
                reason=effect.reason or ("nothing tells what came of it" if effect.status not in _TOLD else ""),
            )


_TOLD = {EffectStatus.DONE, EffectStatus.FAILED}


def _under_way(state: JobState, effect: Effect) -> bool:
    """Whether whoever meant to make an effect may be at it right now."""
    task = state.tasks.get(effect.task)
    if task is None:  # it is over, and what it held forgotten
        return False
    at_work = task.phase is Phase.ASSIGNED and effect.attempt == task.current.number and not state.closed
    return at_work and effect.status is EffectStatus.INTENDED


def _seconds(state: JobState) -> float:
    if state.submitted is None or state.closed is None:
        return 0.0
    return round((state.closed.at - state.submitted.at).total_seconds(), 3)
