"""What a manager does next about the plan: propose one, have it judged, ask a person, or give up."""

from collections.abc import Iterator
from datetime import datetime

from interlock.protocol._replacing import replace
from interlock.protocol.commands import NO, AnswerByDefault, CloseJob, Command, JudgeProposal, Propose
from interlock.protocol.messages import JOB_TASK
from interlock.protocol.planning import is_approved, is_declined
from interlock.protocol.state import JobState, StepState, TaskState

__all__ = ["decide_plan", "direct_answer", "needs_another_plan"]

_TOLD_TASKS = 5
"""The most failed tasks of a step that are told of when a new version is asked for."""

_TOLD_CHARACTERS = 400
"""The most characters of the reason why one of them failed."""


def needs_another_plan(state: JobState, ending: CloseJob) -> bool:
    """Whether the job, instead of ``ending`` so, gets a new version of its plan.

    That is where a task of a step failed that the newest version brought, and versions are left. A plan in the team
    file stays what it is unless the step that failed says ``on_failure: replan``.
    """
    if state.submitted is None or ending.status == "succeeded":
        return False
    team, failed = state.submitted.team, _failed_steps(state)
    if not failed or state.version > team.limits.replans:
        return False
    return not team.plan or any(step.spec.on_failure == "replan" for step in failed)


def direct_answer(state: JobState) -> CloseJob | None:
    """Return the end of a job whose manager has answered without a plan; None where it has not."""
    proposal = state.proposed
    if proposal is None or state.version or proposal.unreadable or proposal.makes != "answer":
        return None
    return CloseJob(state.head, "succeeded", answer=proposal.text)


def decide_plan(state: JobState, now: datetime, ending: CloseJob) -> tuple[Command, ...]:
    """Return the next step on the way to a plan; ``ending`` is how the job ends where none comes about.

    Nothing while a person is asked. There is a ``Propose`` for as long as nobody has proposed anything.
    """
    if state.submitted is None:
        return ()
    question, proposal = state.question, state.proposed
    if question is not None and question.answer is None:
        return tuple(_overdue(state, now))
    if proposal is None:
        if state.tries >= state.submitted.team.limits.plans:
            reasons = "; ".join(state.rejections[-1].reasons)
            return (_without_plan(ending, f"no plan came of {state.tries} tries; the last was rejected: {reasons}"),)
        return (_propose(state),)
    if not proposal.unreadable:
        if proposal.makes == "refusal":
            return (_without_plan(ending, proposal.text or "the manager found no way to do it"),)
        if is_declined(state):
            return (_without_plan(ending, "a person said no to the plan"),)
    return (JudgeProposal(state.head, proposal.version, approved=is_approved(state)),)


def _propose(state: JobState) -> Propose:
    reasons = state.rejections[-1].reasons if state.tries else ()
    return Propose(state.head, state.version + 1, state.tries, reasons, _what_failed(state) if state.version else "")


def _without_plan(ending: CloseJob, reason: str) -> CloseJob:
    return replace(ending, reason="; ".join(filter(None, (ending.reason, reason))))


def _overdue(state: JobState, now: datetime) -> Iterator[AnswerByDefault]:
    """Yield what counts as the person's answer when the time for it is over."""
    asked = state.question.asked if state.question else None
    if asked is not None and asked.expires is not None and asked.expires <= now:
        answer = NO if asked.default is None else asked.default
        yield AnswerByDefault(JOB_TASK, 0, state.head, asked.question, answer)


def _failed_steps(state: JobState) -> list[StepState]:
    """Return the steps with failed tasks of which no later version of the plan knew."""
    steps = (state.steps[name] for name in state.order)
    return [step for step in steps if step.failed and step.since == state.version]


def _what_failed(state: JobState) -> str:
    """Say which tasks failed and why, a few of each step."""
    told: list[str] = []
    for step in _failed_steps(state):
        failed = [task for task in state.tasks.values() if task.step == step.spec.step and task.outcome == "failed"]
        told += [_told(task) for task in sorted(failed, key=_place)[:_TOLD_TASKS]]
        if step.failed > _TOLD_TASKS:
            told.append(f"{step.spec.step}: {step.failed} of {step.size} failed")
    return "; ".join(told)


def _place(task: TaskState) -> int:
    return task.index or 0


def _told(task: TaskState) -> str:
    return f"{task.id}: {task.reason[:_TOLD_CHARACTERS]}"
