"""Putting back what failed: when that makes sense, and what it makes of a job.

Tasks that are put back wait to be assigned again; their attempts keep their numbers, but only those made since count.
Steps that need a step of theirs are made again as well: their result was made without what the retry may yet bring.
What was proposed for a plan that is taken up again is forgotten: it was proposed in view of what had failed.
"""

from collections.abc import Iterable
from datetime import datetime

from interlock.protocol._replacing import replace
from interlock.protocol.decide import exhausted
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.plan import task_id
from interlock.protocol.state import JobState, Phase, StepState, TaskState

__all__ = ["known_beyond", "put_back", "retry_objection"]


def retry_objection(state: JobState, tasks: Iterable[str], at: datetime | None = None) -> str:
    """Return why ``tasks`` cannot be put back, in words, or an empty string where they can.

    ``at`` is when they are; without it nothing is said about the job's deadline.
    """
    if state.submitted is None or not state.version:
        return "the job has no plan yet, so none of its tasks can have failed"
    objection = _objection_of_job(state, state.submitted, at)
    if objection:
        return objection
    tasks = tuple(tasks)
    objections = (_objection_of_task(state, task) for task in tasks)
    first = next((one for one in objections if one), "")
    return first or _objection_of_dependants(state, {state.tasks[task].step for task in tasks})


def put_back(state: JobState, tasks: Iterable[str]) -> JobState:
    """Return the state with ``tasks`` put back, to which there must be no ``retry_objection``."""
    known = [state.tasks[task] for task in dict.fromkeys(tasks)]
    again = _dependants(state, {task.step for task in known})
    for task in known:
        if task.step not in again:
            state = _with_task(state, task)
    for name in again:
        step = state.steps[name]
        if step.complete:
            state = _with_single(state, name) if step.spec.for_each is None else _uncounted(state, step)
    return replace(state, closed=None, proposed=None, question=None, tries=0).queued()


def known_beyond(state: JobState, seq: int) -> bool:
    """Return whether an entry of a task was folded that follows ``seq`` in the log."""
    heads = (
        *(task.head for task in state.tasks.values()),
        *state.strays.values(),
        *(step.settled_head for step in state.steps.values()),
    )
    return any(head > seq for head in heads)


def _objection_of_job(state: JobState, submitted: JobSubmitted, at: datetime | None) -> str:
    if state.rejected is not None:
        return f"its plan was rejected: {'; '.join(state.rejected.reasons)}"
    if state.closed is not None and state.closed.status == "killed":
        return "the job was killed: submit a new one"
    stop = exhausted(state, at or submitted.at)
    return f"the job would be stopped again at once, submit a new one: it is {stop}" if stop else ""


def _objection_of_task(state: JobState, task: str) -> str:
    known = state.tasks.get(task)
    if known is None:
        known_before = state.step_of_settled(task)
        return f"{task} was accepted" if known_before else f"{task} is no task of the job that ever began or was closed"
    if known.phase is Phase.RETRIED:
        return f"{task} is put back already and waits to be assigned"
    if known.outcome == "accepted":
        return f"{task} was accepted"
    if known.step not in state.steps:
        return f"{task} belongs to a step that the plan does not have any more"
    if spent := state.steps[known.step].spent:
        return f"{task} would be ended again at once, submit a new job: its step is out of budget: {spent}"
    return "" if known.phase is Phase.CLOSED else f"{task} is at work and not over yet"


def _objection_of_dependants(state: JobState, steps: set[str]) -> str:
    for name in _dependants(state, steps):
        step = state.steps[name]
        if state.ready(name) and not step.complete:
            return f"step {name}, which needs it, is at work with what there is: put it back when that is over"
        if step.spec.for_each is not None and step.accepted:
            accepted = f"{step.accepted} of its items are accepted and cannot be made again"
            return f"step {name} was made from it, {accepted}: submit a new job"
    return ""


def _dependants(state: JobState, steps: set[str]) -> list[str]:
    """Return the steps that need one of ``steps``, directly or not, in the plan's order."""
    found = set(steps)
    while more := {name for name in state.order if name not in found and found & set(state.steps[name].spec.needs)}:
        found |= more
    return [name for name in state.order if name in found and found & set(state.steps[name].spec.needs)]


def _with_task(state: JobState, task: TaskState) -> JobState:
    """Put one task back and let it come last."""
    if task.index is None:
        return _with_single(state, task.step)
    step = state.steps[task.step]
    failed = task.outcome == "failed"
    step = replace(step, failed=step.failed - failed, cancelled=step.cancelled - (not failed), began=None)
    return replace(
        state,
        tasks=state.tasks.insert(task.id, _reset(task)),
        steps=state.steps.insert(task.step, step),
        queue=(*state.queue, task.id),
    )


def _with_single(state: JobState, name: str) -> JobState:
    """Put the one task of a step back, whatever came of it; the step is queued when it is ready."""
    step = replace(state.steps[name], next_index=0, accepted=0, failed=0, cancelled=0, began=None)
    return replace(
        state,
        tasks=state.tasks.insert(name, _reset(state.tasks[name])),
        steps=state.steps.insert(name, step),
        queue=tuple(one for one in state.queue if one != name),
    )


def _reset(task: TaskState) -> TaskState:
    return replace(
        task,
        phase=Phase.RETRIED,
        base=len(task.attempts),
        outcome=None,
        stands=None,
        reason="",
        question=None,
        ended=None,
    )


def _uncounted(state: JobState, step: StepState) -> JobState:
    """Forget the items of a step, none of which was accepted: there may be others when it is ready again.

    Only the ends of their chains are kept, which the first entries of new tasks of the same name have to answer.
    """
    name = step.spec.step
    for known in [state.tasks[task_id(name, index)] for index in range(step.size or 0)]:
        state = replace(
            state,
            tasks=state.tasks.remove(known.id),
            strays=state.strays.insert(known.id, known.head),
            reporters=state.reporters.insert(known.id, known.roles) if known.acts else state.reporters,
        )
    fresh = StepState(step.spec, size=None, redone=step.redone, spent=step.spent)
    queue = tuple(one for one in state.queue if one != name)
    return replace(state, steps=state.steps.insert(name, fresh), queue=queue)
