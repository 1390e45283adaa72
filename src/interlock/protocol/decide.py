"""What a manager does next: ``decide(state, now)`` is pure and says it as commands.

Every command names the head of the chain that it continues, so that carrying out an outdated one is refused by the
broker and harms nothing. Carrying the commands out and folding what came of it, again and again until there are none,
drives a job to its end.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice

from interlock.protocol.budgets import later, overdue, spent_steps, step_deadlines
from interlock.protocol.commands import (
    NO,
    AcceptPlan,
    AnswerByDefault,
    Assign,
    CloseJob,
    CloseTask,
    Command,
    ExpandStep,
)
from interlock.protocol.deciding_plans import decide_plan, direct_answer, needs_another_plan
from interlock.protocol.messages import JobStatus, TaskOutcome
from interlock.protocol.plan import task_id
from interlock.protocol.redoing import redo
from interlock.protocol.state import Attempt, JobState, Phase, StepState, TaskState
from interlock.protocol.team import Handover, Step

__all__ = [
    "POISON",
    "REPEATED_FEEDBACK",
    "deadline_of",
    "decide",
    "exhausted",
    "repetition",
    "wakes_at",
]

POISON = "poison"
"""What the reason of a task begins with over which process after process died."""

REPEATED_FEEDBACK = 3
"""How often in a row the same objections may be raised before the task counts as going in circles."""


def decide(
    state: JobState, now: datetime, *, killed: str | None = None, window: int | None = None
) -> tuple[Command, ...]:
    """Return what to do next, in any order; nothing when the job is over or others have to move.

    ``killed`` is the reason of a kill order for this job. A job past its deadline or budget is ended in the same way.
    No task is begun beyond ``window`` open ones, nor beyond the team's own limit.
    """
    if state.submitted is None or state.closed is not None:
        return ()
    stop = killed or _out_of_time(state, now)
    if stop:
        return _stop(state, stop, killed=killed is not None)
    if state.rejected is not None:
        return _stop(state, f"the plan is rejected: {'; '.join(state.rejected.reasons)}", killed=False)
    if (answer := direct_answer(state)) is not None:  # whatever it cost, it is paid for
        return (answer,)
    if short := _out_of_budget(state):
        return _wind_up(state, short)
    if not state.version:
        made = state.submitted.team.plan
        return (AcceptPlan(state.head),) if made else decide_plan(state, now, CloseJob(state.head, "failed"))
    over = spent_steps(state, now)
    waiting = (state.tasks[name] for name in sorted(state.waiting))
    answered = tuple(_answer(state, task) for task in waiting if task.step not in over)
    expansion = next(_expansions(state), None)
    beginning = (one for one in _first_assignments(state) if one.step.step not in over)
    started = tuple(islice(beginning, _room(state, window)))
    following = (
        *_ends_of_steps(state, over, now),
        *answered,
        *_overdue(state, now),
        *((expansion,) if expansion else ()),
        *_blocked_tasks(state),
        *started,
    )
    return following or _completion(state, now)


def deadline_of(state: JobState) -> datetime | None:
    """Return when the job must be over, or None."""
    if state.submitted is None:
        return None
    bounds = [state.submitted.deadline, later(state.submitted.at, state.submitted.budget.seconds)]
    return min((bound for bound in bounds if bound is not None), default=None)


def wakes_at(state: JobState) -> datetime | None:
    """Return when the passing of time alone gives the manager something to decide, or None."""
    questions = (state.question, *(state.tasks[task].question for task in state.asking))
    bounds = [
        deadline_of(state),
        *step_deadlines(state),
        *(one.asked.expires for one in questions if one and one.answer is None),
    ]
    return min((bound for bound in bounds if bound is not None), default=None)


def _overdue(state: JobState, now: datetime) -> Iterator[AnswerByDefault]:
    """Yield what counts as the answer to the questions whose time is over: the default, and without one a no."""
    for name in sorted(state.asking):
        task = state.tasks[name]
        asked = task.question.asked if task.question else None
        if asked is not None and asked.expires is not None and asked.expires <= now:
            answer = NO if asked.default is None else asked.default
            yield AnswerByDefault(name, task.current.number, task.head, asked.question, answer)


def repetition(task: TaskState) -> str:
    """Return how the task goes in circles (the same result again, the same objections again), or an empty string."""
    current = task.current
    for earlier in task.counting[:-1]:
        if current.fingerprint is not None and current.fingerprint == earlier.fingerprint:
            return f"attempt {current.number} gave the same result as attempt {earlier.number}"
    recent = task.counting[-REPEATED_FEEDBACK:]
    if len(recent) == REPEATED_FEEDBACK and len({_objections_key(attempt) for attempt in recent}) == 1:
        return f"attempts {recent[0].number} to {current.number} met the same objections"
    return ""


def _objections_key(attempt: Attempt) -> tuple[tuple[str, str], ...]:
    return tuple((objection.criterion, objection.evidence) for objection in attempt.objections)


def exhausted(state: JobState, now: datetime) -> str:
    """Return which bound of the job is used up, or an empty string."""
    return _out_of_time(state, now) or _out_of_budget(state)


def _out_of_time(state: JobState, now: datetime) -> str:
    deadline = deadline_of(state)
    if deadline is None or now < deadline:
        return ""
    return f"out of time: the job had to be over by {deadline.isoformat(timespec='seconds')}"


def _out_of_budget(state: JobState) -> str:
    if state.submitted is None:
        return ""
    budget, used = state.submitted.budget, state.usage
    tokens = used.prompt_tokens + used.completion_tokens
    if budget.tokens is not None and tokens >= budget.tokens:
        return f"out of budget: {tokens} of {budget.tokens} tokens are used"
    if budget.calls is not None and used.calls >= budget.calls:
        return f"out of budget: {used.calls} of {budget.calls} model calls are used"
    return f"out of budget: {state.spent}" if state.spent else ""


def _stop(state: JobState, reason: str, *, killed: bool) -> tuple[Command, ...]:
    """Close every task, begun or not, then the job. What passed before the stop stands.

    A task that never began is closed too: otherwise a manager that has not heard of the stop could still begin it,
    and the job would be over with a task open.
    """
    closing = tuple(
        _accept(task)
        if _passed(task)
        else CloseTask(task.id, task.current.number, task.head, "cancelled", reason=reason)
        for task in state.open_tasks()
    )
    unbegun = tuple(CloseTask(*task, "cancelled", reason=reason) for task in _unbegun(state))
    if closing or unbegun:
        return (*closing, *unbegun)
    return (CloseJob(state.head, "killed" if killed else _status(state), reason),)


def _wind_up(state: JobState, reason: str) -> tuple[Command, ...]:
    """Begin nothing more, wait for the attempts under way, which are paid for, and then close the job."""
    ends = (*_ends(state, None, "cancelled", reason), *(_accept(task) for task in state.open_tasks() if _passed(task)))
    if ends or state.open:
        return ends
    status = _status(state)
    return (CloseJob(state.head, status, "" if status == "succeeded" else reason),)


def _ends_of_steps(state: JobState, over: Mapping[str, str], now: datetime) -> Iterator[CloseTask]:
    """Yield the ends of all tasks of the steps that are over; where it is only the budget, what is paid for goes on."""
    for name, reason in over.items():
        passed = (task for task in state.open_tasks() if task.step == name and _passed(task))
        yield from (_accept(task) for task in passed)
        yield from _ends(state, name, "failed", reason, at_once=bool(overdue(state.steps[name], now)))


def _ends(
    state: JobState, step: str | None, outcome: TaskOutcome, reason: str, *, at_once: bool = False
) -> Iterator[CloseTask]:
    """Yield the ends of tasks, of all steps or one, that did not pass; without ``at_once`` not of those at work."""
    for task in state.open_tasks():
        at_work = task.phase in {Phase.ASSIGNED, Phase.RESULT} and task.id not in state.waiting
        if step in {None, task.step} and not _passed(task) and (at_once or not at_work):
            yield CloseTask(task.id, task.current.number, task.head, outcome, reason=reason)
    for name, made, head in _unbegun(state, step):
        yield CloseTask(name, made, head, outcome, reason=reason)


def _passed(task: TaskState) -> bool:
    verdict = task.current.verdict
    return task.phase is Phase.VERDICT and verdict is not None and verdict.verdict == "pass"


def _accept(task: TaskState) -> CloseTask:
    return CloseTask(task.id, task.current.number, task.head, "accepted", stands=task.current.number)


def _unbegun(state: JobState, only: str | None = None) -> Iterator[tuple[str, int, int]]:
    """Yield the tasks that were never assigned or were put back, with their last attempt and their chain's head."""
    for known in state.tasks.values():
        if known.phase is Phase.RETRIED and only in {None, known.step}:
            yield known.id, len(known.attempts), known.head
    for name in state.order if only is None else (only,):
        step = state.steps[name]
        indices = [None] if step.spec.for_each is None else range(step.next_index, step.size or 0)
        for index in indices:
            if not state.has_begun(step, index):
                task = task_id(name, index)
                yield task, 0, state.head_of(task)


def _answer(state: JobState, task: TaskState) -> Command:
    """Accept what passed, resume what was answered, redo the rest while attempts remain and sense is left in it.

    What cannot go on is closed.
    """
    if task.phase is Phase.ANSWERED:
        return _resume(state, task)
    if task.phase is not Phase.VERDICT:
        reason = "its chain holds an entry that is no next step, so nobody can continue this attempt"
        return CloseTask(task.id, task.current.number, task.head, "failed", reason=reason)
    if _passed(task):
        return _accept(task)
    if task.current.result is not None and task.current.result.poison:
        reason = f"{POISON}: {task.current.result.reason}"
        return CloseTask(task.id, task.current.number, task.head, "failed", reason=reason)
    step = state.steps[task.step].spec
    circles = repetition(task)
    agent = _next_agent(step, task, circling=bool(circles))
    if agent is None:
        return CloseTask(task.id, task.current.number, task.head, "failed", reason=_failure(task, circles))
    return Assign(
        task.id,
        step,
        task.index,
        task.current.number + 1,
        agent,
        task.head,
        **redo(task.attempts),
    )


def _resume(state: JobState, task: TaskState) -> Assign:
    """Let the attempt that waited for a person go on, as it was assigned before."""
    return Assign(
        task.id,
        state.steps[task.step].spec,
        task.index,
        task.current.number,
        task.current.role.partition("@")[0],
        task.head,
        resumes=task.question.answered if task.question else 0,
        **redo(task.attempts[:-1]),
    )


def _next_agent(step: Step, task: TaskState, *, circling: bool) -> str | None:
    """Return who tries next: the same agent while it may, then the one that takes over, then nobody."""
    agent = task.current.role.partition("@")[0]
    tried = sum(attempt.role == task.current.role for attempt in task.counting)
    handover = step.on_failure if isinstance(step.on_failure, Handover) else None
    if handover is not None and handover.agent == step.agent:
        handover = None  # an agent cannot take over from itself: that would never end
    taken_over = handover is not None and agent == handover.agent
    allowed = handover.attempts if handover and taken_over else step.attempts
    if tried < allowed and not circling:
        return agent
    return handover.agent if handover and not taken_over else None


def _failure(task: TaskState, circles: str) -> str:
    objections = "; ".join(f"{one.criterion}: {one.evidence}" for one in task.current.objections)
    return f"{circles}; {objections}" if circles else objections or "the verifier did not pass it"


def _expansions(state: JobState) -> Iterator[ExpandStep]:
    for name in state.order:
        if state.steps[name].size is None and state.ready(name):
            yield ExpandStep(name, state.head, state.obstacle(name))


def _blocked_tasks(state: JobState) -> tuple[CloseTask, ...]:
    """Close the steps of one task whose needs delivered nothing."""
    return tuple(
        CloseTask(name, _made(state, name), state.head_of(name), "cancelled", reason=obstacle)
        for name in state.order
        if state.steps[name].spec.for_each is None
        and state.may_begin(state.steps[name], None)
        and state.ready(name)
        and (obstacle := state.obstacle(name))
    )


def _room(state: JobState, window: int | None) -> int:
    limit = state.submitted.team.limits.open if state.submitted else 0
    limit = limit if window is None else min(limit, window)
    return max(0, limit - state.open)


def _first_assignments(state: JobState) -> Iterator[Assign]:
    """Yield the tasks that can begin, or begin again, in the order of the queue and of the items.

    Of those that teams do, no more than the job may have at once.
    """
    teams = _teams_within(state)
    span = _span(state, teams)
    for name in state.queue:
        step = state.steps.get(name)
        again = state.tasks[name] if step is None else None  # an item that was put back
        known = step or state.steps[state.tasks[name].step]
        positions = (again.index,) if again else range(known.next_index, known.size or 0)
        for position in positions:
            if known.spec.agent in teams and span <= 0:
                break
            index = None if known.spec.for_each is None else position
            if again or state.may_begin(known, index):
                span -= known.spec.agent in teams
                yield _first(state, known, index)


def _teams_within(state: JobState) -> frozenset[str]:
    """Return the agents that are teams."""
    agents = state.submitted.team.agents if state.submitted else {}
    return frozenset(name for name, agent in agents.items() if agent.kind == "team")


def _span(state: JobState, teams: frozenset[str]) -> int:
    """Return how many more tasks may be begun that teams do: each is a job of its own, with a manager."""
    if not teams or state.submitted is None:
        return 0
    under_way = sum(task.current.role.partition("@")[0] in teams for task in state.open_tasks())
    return state.submitted.team.limits.managers_span - under_way


def _first(state: JobState, step: StepState, index: int | None) -> Assign:
    """Begin a task, or begin it again: with its own agent, and told of all attempts that were made before."""
    task = task_id(step.spec.step, index)
    known = state.tasks.get(task)
    return Assign(
        task,
        step.spec,
        index,
        _made(state, task) + 1,
        step.spec.agent,
        state.head_of(task),
        **redo(known.attempts if known else ()),
    )


def _made(state: JobState, task: str) -> int:
    """Return how many attempts of ``task`` were made."""
    known = state.tasks.get(task)
    return len(known.attempts) if known else 0


def _completion(state: JobState, now: datetime) -> tuple[Command, ...]:
    """End a job of which every task is closed, or ask for a new version of a plan that came to nothing."""
    if not all(step.complete for step in state.steps.values()):
        return ()
    ending = CloseJob(state.head, _status(state), _shortfall(state))
    return decide_plan(state, now, ending) if needs_another_plan(state, ending) else (ending,)


def _status(state: JobState) -> JobStatus:
    """Succeeded when everything was accepted; failed when nothing stands of what the result is made of."""
    steps = state.steps.values()
    if state.version and all(step.complete and step.accepted == step.size and not step.blocked for step in steps):
        return "succeeded"
    return "partial" if any(state.steps[name].accepted for name in state.result_steps) else "failed"


def _shortfall(state: JobState) -> str:
    """Say which steps are not whole, for the report."""
    return "; ".join(
        f"{name}: {step.blocked or f'{step.size - step.accepted} of {step.size} not accepted'}"
        for name in state.order
        if (step := state.steps[name]).size is not None and (step.accepted < step.size or step.blocked)
    )
