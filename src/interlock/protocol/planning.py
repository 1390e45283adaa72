"""What entries about the plan make of a job: proposals, what a person is asked about them, and what is accepted.

A team file may bring the plan along; then it is accepted first of all. Otherwise the manager's model proposes one, and
only what stands in the log as a proposal can be accepted. A later version follows where tasks failed for good: once all
tasks are closed it is proposed and accepted in the same way. It keeps each step of which anything was accepted, and a
step that it keeps stays as it is; names of steps are never used again.
"""

from __future__ import annotations  # the map of rpds is generic for type checkers only

from collections.abc import Iterator, Sequence

from rpds import HashTrieMap

from interlock.protocol._replacing import replace
from interlock.protocol.base import Role, role_of
from interlock.protocol.messages import (
    JobSubmitted,
    Message,
    PlanAccepted,
    PlanProposed,
    PlanRejected,
    QuestionAnswered,
    QuestionAsked,
)
from interlock.protocol.plan import check_graph
from interlock.protocol.state import Entry, JobState, PlanVersion, Question, StepState
from interlock.protocol.team import Step, Team

__all__ = ["change_requested", "evolve_plan", "is_approved", "is_declined", "keeping_problems", "manager_role"]


def evolve_plan(state: JobState, entry: Entry) -> JobState | None:
    """Return the state after an entry about the plan, the head aside; None where it is no next step."""
    message: Message = entry.message
    if state.submitted is None:
        return None
    match message:
        case PlanProposed() if _may_propose(state, state.submitted, message):
            return _proposed(state, message)
        case QuestionAsked() if state.proposed and _may_ask(state, state.submitted, state.proposed, message):
            return replace(state, question=Question(message))
        case QuestionAnswered() if state.proposed and state.question and state.question.answer is None:
            return _answered(state, state.proposed, state.question, message, entry.seq)
        case PlanRejected():
            return _rejected(state, message)
        case PlanAccepted() if _may_accept(state, state.submitted, message):
            return _accepted(state, message)
        case _:
            return None


def manager_role(team: Team) -> Role:
    """Return who asks on behalf of the manager: the team's agent of that kind, or else a name that no agent has."""
    named = (name for name, agent in team.agents.items() if agent.kind == "manager")
    free = (f"{'the-' * more}manager" for more in range(len(team.agents) + 1))
    return role_of(next(named, None) or next(name for name in free if name not in team.agents), team.team)


def keeping_problems(state: JobState, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return why ``steps`` cannot be the next version of the job's plan after those before; empty where they can."""
    return tuple(_keeping_problems(state, {step.step: step for step in steps}))


def is_approved(state: JobState) -> bool:
    """Whether a person said yes to the proposal at hand."""
    return _said(state) == "yes"


def is_declined(state: JobState) -> bool:
    """Whether a person said no to the proposal at hand, and nothing more."""
    answer = state.question.answer if state.question else None
    return _said(state) == "no" and answer is not None and not answer.note


def change_requested(state: JobState) -> str:
    """Return what a person wants to be different about the proposal at hand; empty where nothing was said of it."""
    answer = state.question.answer if state.question else None
    if answer is None or is_approved(state):
        return ""
    return answer.note if _said(state) == "no" else "; ".join(filter(None, (answer.answer, answer.note)))


def _said(state: JobState) -> str:
    answer = state.question.answer if state.question else None
    return answer.answer.strip().casefold() if answer else ""


def _may_propose(state: JobState, submitted: JobSubmitted, message: PlanProposed) -> bool:
    """Whether a proposal is due: there is no plan and none in the team file, or all that the plan had is closed."""
    limits = submitted.team.limits
    if state.proposed is not None or state.rejected is not None or state.tries >= limits.plans:
        return False
    if message.version != state.version + 1:
        return False
    if not state.version:
        return not submitted.team.plan
    return state.version <= limits.replans and _is_over(state)


def _is_over(state: JobState) -> bool:
    return all(step.complete for step in state.steps.values())


def _proposed(state: JobState, message: PlanProposed) -> JobState:
    state = replace(state, usage=state.usage + message.usage)
    if message.spent:
        return replace(state, spent=state.spent or message.spent)
    return replace(state, proposed=message, proposals=state.proposals + 1)


def _may_ask(state: JobState, submitted: JobSubmitted, proposal: PlanProposed, message: QuestionAsked) -> bool:
    """Whether the manager may ask a person now: what its model asks, or whether its plan may be followed."""
    if state.question is not None or proposal.unreadable or message.by != manager_role(submitted.team):
        return False
    if message.about == "plan":
        return proposal.makes == "plan" and submitted.approve_plan
    return message.about == "input" and proposal.makes == "question"


def _answered(
    state: JobState, proposal: PlanProposed, question: Question, message: QuestionAnswered, seq: int
) -> JobState | None:
    if message.question != question.asked.question:
        return None
    question = replace(question, answer=message, answered=seq)
    if proposal.makes == "plan":
        return replace(state, question=question)
    return replace(state, proposed=None, question=None, answers=(*state.answers, question))


def _rejected(state: JobState, message: PlanRejected) -> JobState | None:
    """Count a proposal that is rejected; any other rejection is of the plan in force, and ends the job."""
    if state.proposed is None or message.version != state.proposed.version:
        in_force = state.rejected is None and message.version == (state.version or 1)
        return replace(state, rejected=message) if in_force else None
    if state.question is not None and state.question.answer is None:
        return None
    return replace(state, proposed=None, question=None, tries=state.tries + 1, rejections=(*state.rejections, message))


def _may_accept(state: JobState, submitted: JobSubmitted, plan: PlanAccepted) -> bool:
    """Whether ``plan`` is a graph without circles, with the steps of the result, and the one that is due."""
    names = {step.step for step in plan.steps}
    sound = not check_graph(plan.steps) and names.issuperset(plan.result_steps)
    if not sound or plan.version != state.version + 1:
        return False
    if not state.version and submitted.team.plan:
        return True
    if state.proposed is None or not _is_what_was_proposed(plan, state.proposed):
        return False
    if submitted.approve_plan and not is_approved(state):
        return False
    return not keeping_problems(state, plan.steps)


def _is_what_was_proposed(plan: PlanAccepted, proposal: PlanProposed) -> bool:
    """Whether ``plan`` has the proposed steps, with more needs written out at most."""
    if proposal.makes != "plan" or proposal.unreadable or proposal.version != plan.version:
        return False
    return len(plan.steps) == len(proposal.steps) and all(
        _without_needs(step) == _without_needs(other) and set(step.needs) >= set(other.needs)
        for step, other in zip(plan.steps, proposal.steps, strict=True)
    )


def _without_needs(step: Step) -> Step:
    return step.model_copy(update={"needs": ()})


def _keeping_problems(state: JobState, steps: dict[str, Step]) -> Iterator[str]:
    for name in state.order:
        was, now = state.steps[name], steps.get(name)
        if now is None and was.accepted:
            yield f"step {name} has results that were accepted: it stays in the plan, as it is"
        if now is not None and not _same(now, was.spec):
            yield f"step {name} has run and cannot be changed: leave it as it was, or give the new step another name"
    for name in steps:
        if name in state.dropped:
            yield f"step {name}: an earlier version of the plan had a step of that name: use another name"


def _same(step: Step, other: Step) -> bool:
    return _without_needs(step) == _without_needs(other) and set(step.needs) == set(other.needs)


def _accepted(state: JobState, plan: PlanAccepted) -> JobState:
    """Follow ``plan``: what it keeps of the one before goes on as it is, what it drops is over."""
    steps = {step.step: state.steps.get(step.step) or _fresh(step, plan.version) for step in plan.steps}
    dropped = state.dropped
    for name in state.order:
        dropped = dropped if name in steps else dropped.insert(name, state.steps[name])
    made = PlanVersion(plan.version, tuple(steps), state.proposed.text if state.proposed else "")
    return replace(
        state,
        version=plan.version,
        steps=HashTrieMap(steps),
        order=tuple(steps),
        dropped=dropped,
        queue=tuple(name for name in state.queue if name in steps),
        result_steps=plan.result_steps,
        plans=(*state.plans, made),
        proposed=None,
        question=None,
        tries=0,
    ).queued()


def _fresh(step: Step, version: int) -> StepState:
    return StepState(step, size=1 if step.for_each is None else None, since=version)
