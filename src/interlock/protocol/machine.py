"""The state of a job as the fold of its log entries.

``evolve(state, entry)`` is pure: it returns the next state and never changes the one it was given. It accepts an entry
only where the entry continues its chain (``answers`` is the chain's head) and is a legal next step. Any other entry is
counted in ``refused``; it still is the chain's head, since the broker compares with what stands in the log, and a task
that it left without a next step waits for the manager, so that whatever was written, every job can be ended. A task
that waits for a person goes on waiting: the answer follows whatever stands there.

A task goes ``assigned -> result -> verdict`` and from there either to the next ``assigned`` (redo) or to ``closed``.
What failed or was cancelled may be put back (``job.retried``), also after the job's end, and is then assigned anew.
An attempt that has to wait for a person goes ``assigned -> asked -> answered -> assigned`` (the same attempt) first.
Who sends an entry is what the broker authenticated, and only the roles that the assignment names may go on with it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from rpds import HashTrieSet

from interlock.protocol._replacing import replace
from interlock.protocol.evolving_effects import intended, is_of_this_task, recorded
from interlock.protocol.messages import (
    JOB_TASK,
    EffectDone,
    EffectInDoubt,
    EffectIntended,
    JobClosed,
    JobRetried,
    JobSubmitted,
    PlanExpanded,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
    TaskOutcome,
    TaskResult,
    TaskVerdict,
)
from interlock.protocol.plan import TaskIdInvalid, parse_task_id
from interlock.protocol.planning import evolve_plan
from interlock.protocol.retries import known_beyond, put_back, retry_objection
from interlock.protocol.state import (
    Attempt,
    Entry,
    JobState,
    Phase,
    Question,
    StepState,
    TaskState,
    is_known,
)
from interlock.protocol.taint import joined

__all__ = ["evolve", "fold", "settle"]


def fold(entries: Iterable[Entry], state: JobState | None = None) -> JobState:
    """Return the state after ``entries``."""
    state = state or JobState()
    for entry in entries:
        state = evolve(state, entry)
    return state


def evolve(state: JobState, entry: Entry) -> JobState:
    """Return the state after ``entry``. Never raises for an entry that does not fit: it is counted as refused."""
    message = entry.message
    if isinstance(message, EffectDone | EffectInDoubt):
        return recorded(state, message)
    if state.step_of_settled(message.task):
        return replace(state, refused=state.refused + 1)
    head = state.head_of(message.task)
    if entry.seq <= head:
        return replace(state, refused=state.refused + 1)
    over = state.closed is not None and not isinstance(message, JobRetried)
    if over or message.answers != head:
        return _refuse(state, entry)
    if message.task == JOB_TASK:
        return _evolve_job(state, entry)
    return _evolve_task(state, state.tasks.get(message.task), entry)


def settle(state: JobState, task: str) -> JobState:
    """Forget what an accepted task of a ``for_each`` step holds, so that a job may have any number of items.

    The state counts it as closed and accepted from then on and decides as before. What it was is in the log. Any other
    task, of which there are few, stays as it is.
    """
    known = state.tasks.get(task)
    if known is None or known.index is None or known.outcome != "accepted":
        return state
    step = state.steps[known.step]
    ahead = known.index >= step.next_index
    step = replace(
        step,
        settled=step.settled.insert(known.index) if ahead else step.settled,
        settled_head=max(step.settled_head, known.head),
        settled_taint=joined(step.settled_taint, *(one.result.taint for one in known.attempts if one.result)),
    )
    return replace(
        state,
        tasks=state.tasks.remove(task),
        steps=state.steps.insert(known.step, step),
        reporters=state.reporters.insert(task, known.roles) if known.acts else state.reporters,
    )


def _refuse(state: JobState, entry: Entry) -> JobState:
    """Count an entry that must not be there, and keep its chain in a shape that the manager can go on from."""
    state, name = replace(state, refused=state.refused + 1), entry.message.task
    if name == JOB_TASK:
        return replace(state, head=entry.seq)
    task = state.tasks.get(name)
    if task is None:
        return replace(state, strays=state.strays.insert(name, entry.seq))
    idle = task.phase in {Phase.CLOSED, Phase.RETRIED, Phase.ASKED}
    waiting = state.waiting if idle else state.waiting | {name}
    return replace(state, tasks=state.tasks.insert(name, replace(task, head=entry.seq)), waiting=waiting)


def _evolve_job(state: JobState, entry: Entry) -> JobState:
    message = entry.message
    following: JobState | None = None
    match message:
        case JobSubmitted() if state.submitted is None:
            following = replace(state, submitted=message, origin=entry.origin)
        case PlanExpanded():
            step = state.steps.get(message.step)
            if step is not None and step.size is None and not (message.items and message.reason):
                following = _with_expansion(state, step, message)
        case JobClosed() if state.submitted is not None and not state.open:
            following = replace(state, closed=message)
        case JobRetried():
            return _retried(
                replace(state, disordered=state.disordered or known_beyond(state, entry.seq)), message, entry
            )
        case _:
            following = evolve_plan(state, entry)
    return _refuse(state, entry) if following is None else replace(following, head=entry.seq)


def _retried(state: JobState, message: JobRetried, entry: Entry) -> JobState:
    if retry_objection(state, message.tasks, message.at):
        return _refuse(state, entry)
    return replace(put_back(state, message.tasks), head=entry.seq)


def _with_expansion(state: JobState, step: StepState, message: PlanExpanded) -> JobState:
    expanded = replace(step, size=message.items, blocked=message.reason, stored=message.stored)
    return replace(state, steps=state.steps.insert(message.step, expanded)).queued()


def _evolve_task(state: JobState, task: TaskState | None, entry: Entry) -> JobState:
    message = entry.message
    match message:
        case TaskAssigned():
            return _assigned(state, task, message, entry)
        case TaskResult() if task and _by_worker(task, message):
            return _result(state, task, message, entry)
        case TaskVerdict() if task and _by_verifier(task, message):
            return _verdict(state, task, message, entry)
        case TaskClosed():
            return _closed(state, task, message, entry)
        case EffectIntended() if task and _by_worker(task, message) and is_of_this_task(state, message):
            return intended(state, replace(task, head=entry.seq, acts=True), message)
        case QuestionAsked() if task and _by_worker(task, message):
            return _asked(state, replace(task, head=entry.seq), message)
        case QuestionAnswered() if task and task.phase is Phase.ASKED and task.question:
            return _answered(state, replace(task, head=entry.seq), task.question, message, entry)
        case _:
            return _refuse(state, entry)


def _by_worker(task: TaskState, message: TaskResult | EffectIntended | QuestionAsked) -> bool:
    """Whether ``message`` comes from the role that the attempt under way was given to."""
    attempt = task.current if task.phase is Phase.ASSIGNED else None
    return attempt is not None and message.attempt == attempt.number and message.by == attempt.role


def _by_verifier(task: TaskState, message: TaskVerdict) -> bool:
    """Whether ``message`` comes from the role that the result under way was handed to."""
    attempt = task.current if task.phase is Phase.RESULT else None
    return attempt is not None and message.attempt == attempt.number and message.by == attempt.verifier


def _asked(state: JobState, task: TaskState, message: QuestionAsked) -> JobState:
    task = replace(task, phase=Phase.ASKED, question=Question(message))
    return replace(
        state,
        tasks=state.tasks.insert(task.id, task),
        asking=state.asking | {task.id},
        waiting=state.waiting - {task.id},
    )


def _answered(
    state: JobState, task: TaskState, question: Question, message: QuestionAnswered, entry: Entry
) -> JobState:
    if message.question != question.asked.question:
        return _refuse(state, entry)
    task = replace(task, phase=Phase.ANSWERED, question=replace(question, answer=message, answered=entry.seq))
    return replace(
        state,
        tasks=state.tasks.insert(task.id, task),
        asking=state.asking - {task.id},
        waiting=state.waiting | {task.id},
    )


def _assigned(state: JobState, task: TaskState | None, message: TaskAssigned, entry: Entry) -> JobState:
    if not _may_assign(state, task, message):
        return _refuse(state, entry)
    if task is not None and message.resumes:
        task = replace(task, head=entry.seq, phase=Phase.ASSIGNED)
        return replace(state, tasks=state.tasks.insert(task.id, task), waiting=state.waiting - {task.id})
    attempt = Attempt(message.attempt, message.role, message.verifier)
    begins, again, queue = True, False, state.queue
    if task is None:
        task = TaskState(
            message.task,
            message.step,
            message.index,
            entry.seq,
            Phase.ASSIGNED,
            (attempt,),
            label=message.label,
            began=message.at,
        )
    else:
        begins, again = task.phase is Phase.RETRIED, bool(task.attempts)
        queue = _queue_without(state, task) if begins else queue
        task = replace(
            task,
            head=entry.seq,
            phase=Phase.ASSIGNED,
            attempts=(*task.attempts, attempt),
            label=message.label or task.label,
            question=None,
        )
    step, tasks = state.steps[message.step], state.tasks.insert(task.id, task)
    index, settled = _next_index(step, tasks)
    step = replace(
        step,
        began=step.began or message.at,
        open=step.open + begins,
        redone=step.redone + again,
        next_index=index,
        settled=settled,
    )
    return replace(
        state,
        tasks=tasks,
        steps=state.steps.insert(message.step, step),
        waiting=state.waiting - {task.id},
        queue=queue,
    )


def _may_assign(state: JobState, task: TaskState | None, message: TaskAssigned) -> bool:
    """Whether ``message`` begins a task of the plan, redoes what did not pass, or resumes what waited for a person."""
    if task is None:
        place = _place(state, message.task)
        begins = message.attempt == 1 and not message.resumes
        return place is not None and begins and (place[0].spec.step, place[1]) == _named(message)
    if message.resumes:
        return task.phase is Phase.ANSWERED and _same_attempt(task, message)
    if task.phase is Phase.RETRIED:
        return message.attempt == len(task.attempts) + 1 and (task.step, task.index) == _named(message)
    verdict = task.current.verdict if task.attempts else None
    return (
        task.phase is Phase.VERDICT
        and verdict is not None
        and verdict.verdict != "pass"
        and message.attempt == task.current.number + 1
        and (task.step, task.index) == _named(message)
    )


def _same_attempt(task: TaskState, message: TaskAssigned) -> bool:
    return (
        message.attempt == task.current.number
        and (message.role, message.verifier) == (task.current.role, task.current.verifier)
        and task.question is not None
        and message.resumes == task.question.answered
        and (task.step, task.index) == _named(message)
    )


def _named(message: TaskAssigned) -> tuple[str, int | None]:
    return message.step, message.index


def _queue_without(state: JobState, task: TaskState) -> tuple[str, ...]:
    """Return the queue without an item that was put back; a step stays there."""
    if task.index is None or task.id not in state.queue:
        return state.queue
    place = state.queue.index(task.id)
    return (*state.queue[:place], *state.queue[place + 1 :])


def _next_index(step: StepState, tasks: Container[str]) -> tuple[int, HashTrieSet[int]]:
    """Return the first item of ``step`` that is still to be assigned for the first time, and what is settled beyond.

    ``tasks`` are those that the log knows and that are not settled.
    """
    if step.spec.for_each is None:
        return 1, step.settled
    index, settled = step.next_index, step.settled
    while index < (step.size or 0) and is_known(tasks, step, index):
        settled = settled.discard(index)
        index += 1
    return index, settled


def _result(state: JobState, task: TaskState, message: TaskResult, entry: Entry) -> JobState:
    attempt = replace(task.current, result=message, origin=entry.origin)
    task = replace(
        task,
        head=entry.seq,
        phase=Phase.RESULT,
        attempts=(*task.attempts[:-1], attempt),
        usage=task.usage + message.usage,
    )
    return _worked_on(state, task, message, state.waiting)


def _verdict(state: JobState, task: TaskState, message: TaskVerdict, entry: Entry) -> JobState:
    attempt = replace(task.current, verdict=message)
    task = replace(
        task,
        head=entry.seq,
        phase=Phase.VERDICT,
        attempts=(*task.attempts[:-1], attempt),
        usage=task.usage + message.usage,
    )
    return _worked_on(state, task, message, state.waiting | {task.id})


def _worked_on(
    state: JobState, task: TaskState, message: TaskResult | TaskVerdict, waiting: frozenset[str]
) -> JobState:
    """Return ``state`` with ``task`` as its worker or verifier left it, and what that used and used up."""
    steps, spent = state.steps, state.spent
    if message.spent and message.spent_of == "job":
        spent = spent or message.spent
    elif message.spent:
        step = steps[task.step]
        steps = steps.insert(task.step, replace(step, spent=step.spent or message.spent))
    return replace(
        state,
        tasks=state.tasks.insert(task.id, task),
        waiting=waiting,
        usage=state.usage + message.usage,
        steps=steps,
        spent=spent,
    )


def _closed(state: JobState, task: TaskState | None, message: TaskClosed, entry: Entry) -> JobState:
    if task is None:
        return _closed_unassigned(state, message, entry)
    if task.phase is Phase.CLOSED or not _may_close(task, message):
        return _refuse(state, entry)
    begun = task.phase is not Phase.RETRIED
    queue = state.queue if begun else _queue_without(state, task)
    task = replace(
        task,
        head=entry.seq,
        phase=Phase.CLOSED,
        outcome=message.outcome,
        stands=message.stands,
        reason=message.reason,
        ended=message.at,
    )
    step = _counted(state.steps[task.step], message.outcome, begun=begun)
    state = replace(
        state,
        tasks=state.tasks.insert(task.id, task),
        steps=state.steps.insert(task.step, step),
        waiting=state.waiting - {task.id},
        asking=state.asking - {task.id},
        queue=queue,
    )
    return state.queued() if step.complete else state


def _may_close(task: TaskState, message: TaskClosed) -> bool:
    """Whether ``message`` accepts what was found to pass, and nothing else is ever accepted."""
    if message.outcome != "accepted":
        return message.stands is None
    verdict = task.current.verdict if task.attempts else None
    return (
        task.phase is Phase.VERDICT
        and verdict is not None
        and verdict.verdict == "pass"
        and message.stands == task.current.number
    )


def _closed_unassigned(state: JobState, message: TaskClosed, entry: Entry) -> JobState:
    """Close a task that never began, because its needs delivered nothing or it could not be put into words."""
    place = _place(state, message.task)
    if place is None or message.outcome == "accepted":
        return _refuse(state, entry)
    step, index = place
    task = TaskState(
        message.task,
        step.spec.step,
        index,
        entry.seq,
        Phase.CLOSED,
        outcome=message.outcome,
        reason=message.reason,
        began=message.at,
        ended=message.at,
    )
    tasks = state.tasks.insert(task.id, task)
    following, settled = _next_index(step, tasks)
    step = _counted(replace(step, next_index=following, settled=settled), message.outcome, begun=False)
    state = replace(state, tasks=tasks, steps=state.steps.insert(task.step, step))
    return state.queued() if step.complete else state


def _place(state: JobState, task: str) -> tuple[StepState, int | None] | None:
    """Return the step and the item that the plan has for ``task``; None where it has none."""
    try:
        name, index = parse_task_id(task)
    except TaskIdInvalid:
        return None
    step = state.steps.get(name)
    if step is None or (index is None) != (step.spec.for_each is None) or (index or 0) >= (step.size or 0):
        return None
    return step, index


def _counted(step: StepState, outcome: TaskOutcome, *, begun: bool) -> StepState:
    """Return ``step`` with one more closed task, which was open where it had begun."""
    still = step.open - begun
    match outcome:
        case "accepted":
            return replace(step, open=still, accepted=step.accepted + 1)
        case "failed":
            return replace(step, open=still, failed=step.failed + 1)
        case "cancelled":
            return replace(step, open=still, cancelled=step.cancelled + 1)
