"""How a manager puts its decisions into words: commands of ``protocol.decide`` become messages.

No NATS and no clock in here: ids and times come with each call, and so do items and outputs, which the state of a job
does not hold. Everything is derived from the log, so any manager that takes a job over says the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from interlock.agents.authority import plan_objections
from interlock.agents.grants import Labels, evaluated, grant_of
from interlock.agents.outcome import outcome_of, wanted_by_outcome
from interlock.agents.proposals import completed, proposal_problems, question_about_plan, result_steps_of
from interlock.agents.proposer import ProposalOutcome
from interlock.agents.scopes import NotAList, Scopes
from interlock.agents.shelf import NOTHING, NOTHING_BROUGHT, NotBrought, Shelf, Wanted
from interlock.agents.templates import TemplateError, render
from interlock.protocol.base import Json, role_of
from interlock.protocol.budgets import allowances_of, seconds_for
from interlock.protocol.commands import (
    AcceptPlan,
    AnswerByDefault,
    Assign,
    CloseJob,
    CloseTask,
    ExpandStep,
    JudgeProposal,
    Propose,
    Written,
)
from interlock.protocol.control import NO_POLICY
from interlock.protocol.criteria import AnyCriterion, map_templates
from interlock.protocol.decide import deadline_of
from interlock.protocol.items import StoredItems
from interlock.protocol.messages import (
    Envelope,
    JobClosed,
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
)
from interlock.protocol.planning import evolve_plan, manager_role
from interlock.protocol.state import Entry, JobState
from interlock.protocol.team import Step, Team, output_schema

__all__ = ["NothingProposed", "Planner", "Stamp", "verifier_of"]

_LABEL = 80
"""The most characters of a label."""

_OF_AN_ITEM = ({"index", "item", "output"}, {"index", "item", "reason"})
"""The keys of what templates see of one task of a step."""

_Message = TypeVar("_Message", bound=Envelope)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the outside world adds to a message."""

    id: str
    at: datetime


class NothingProposed(LookupError):
    """A proposal is to be judged of a job that has none at hand."""

    def __init__(self, job: str) -> None:
        super().__init__(f"nothing is proposed in job {job}: only a command of its newest state can be carried out")
        self.job = job


class Planner:
    """Says what the manager of one job decided. Keeps nothing that the log does not give again."""

    def __init__(self, submitted: JobSubmitted) -> None:
        self._submitted = submitted
        self._team = submitted.team
        self._scopes = Scopes(submitted)
        self._labels = Labels(submitted.team)
        self.policy = NO_POLICY
        """What the operator has laid down; whoever coordinates keeps it up to date."""

    def wants(self, state: JobState, command: Written) -> Wanted:
        """Return what the message of ``command`` is made of, as far as ``state`` does not hold it."""
        match command:
            case ExpandStep(blocked=""):
                return self._scopes.wanted_by_expansion(state, state.steps[command.step].spec)
            case Assign():
                return self._scopes.wanted_by_task(state, command.step, command.index)
            case CloseJob(answer=None) if command.status != "failed":
                return wanted_by_outcome(self._scopes, self._submitted, state)
            case _:
                return NOTHING

    def message(self, state: JobState, command: Written, stamp: Stamp, shelf: Shelf = NOTHING_BROUGHT) -> Message:
        """Return the message that carries ``command`` out; ``shelf`` has what it ``wants``.

        What fails for one task, such as a template, becomes that task's end, with the reason; it never stops the job.
        """
        match command:
            case AcceptPlan():
                return self._accept_plan(state, command, stamp)
            case JudgeProposal():
                return self._judge(state, command, stamp)
            case ExpandStep():
                return self._expand(state, command, stamp, shelf)
            case Assign():
                return self._assign(state, command, stamp, shelf)
            case AnswerByDefault():
                return self._answer(command, stamp)
            case CloseTask():
                return self._close_task(command, stamp)
            case CloseJob():
                return self._close_job(state, command, stamp, shelf)

    def excuse(
        self, state: JobState, command: Written, stamp: Stamp, reason: str, shelf: Shelf = NOTHING_BROUGHT
    ) -> Message:
        """Return what stands for the message of ``command`` where that cannot be sent: the end of the task or job."""
        match command:
            case Assign():
                return self._cannot_assign(command, stamp, reason)
            case CloseJob():
                return self._cannot_tell(state, command, stamp, reason)
            case AcceptPlan() | JudgeProposal() | ExpandStep() | AnswerByDefault() | CloseTask():
                return self.message(state, command, stamp, shelf)

    def worked_out(self, state: JobState, command: ExpandStep, shelf: Shelf) -> list[Json] | None:
        """Return the items that a template gives, so that they can be stored if they are many.

        None where there is no template to be worked out, or where it fails, which the message will say.
        """
        step = state.steps[command.step].spec
        if command.blocked or not isinstance(step.for_each, str) or self._scopes.stored(state, step) is not None:
            return None
        try:
            return self._scopes.worked_out(state, step, shelf)
        except (TemplateError, NotAList, NotBrought):
            return None

    def items(self, state: JobState, step: str, shelf: Shelf) -> Sequence[Json]:
        """Return the items of a step that are not stored.

        :raises NotBrought: something that they are worked out from is not on the shelf
        :raises TemplateError: the step's template fails
        :raises NotAList: it gives no list
        """
        return self._scopes.items(state, state.steps[step].spec, shelf)

    def _envelope(self, kind: type[_Message], stamp: Stamp, **fields: Any) -> _Message:
        return kind(
            id=stamp.id,
            at=stamp.at,
            ns=self._submitted.ns,
            job=self._submitted.job,
            epoch=self._submitted.epoch,
            **fields,
        )

    def objections(self, state: JobState) -> tuple[str, ...]:
        """Return why the plan must not run, or not run on: the principles that it breaks, what it never could do."""
        following = [state.steps[name].spec for name in state.order]
        return plan_objections(self._submitted, self.policy, following or self._team.plan)

    def rejection(self, state: JobState, reasons: tuple[str, ...], stamp: Stamp) -> PlanRejected:
        """Return the message that ends a job because of its plan."""
        return self._envelope(PlanRejected, stamp, answers=state.head, version=state.version or 1, reasons=reasons)

    def proposal(self, command: Propose, outcome: ProposalOutcome, stamp: Stamp) -> PlanProposed:
        """Return the message that tells what came of asking the manager's model."""
        return self._envelope(
            PlanProposed,
            stamp,
            answers=command.answers,
            version=command.version,
            **{one.name: getattr(outcome, one.name) for one in fields(outcome)},
        )

    def _accept_plan(self, state: JobState, command: AcceptPlan, stamp: Stamp) -> PlanAccepted | PlanRejected:
        objections = self.objections(state)
        if objections:
            return self.rejection(state, objections, stamp)
        return self._accepted(self._team.plan, command.answers, 1, stamp)

    def _accepted(self, steps: Sequence[Step], answers: int, version: int, stamp: Stamp) -> PlanAccepted:
        steps = completed(steps)
        made_of = result_steps_of(self._team, steps)
        return self._envelope(PlanAccepted, stamp, answers=answers, version=version, steps=steps, result_steps=made_of)

    def _judge(
        self, state: JobState, command: JudgeProposal, stamp: Stamp
    ) -> PlanAccepted | PlanRejected | QuestionAsked:
        """Accept what the manager's model proposed, or reject it, or ask a person about it.

        What nobody who reads the log would take is rejected, whatever is wrong with it: it would be decided for ever.
        """
        proposal = state.proposed
        if proposal is None:
            raise NothingProposed(self._submitted.job)
        problems = proposal_problems(self._submitted, self.policy, state, proposal, command)
        if not problems:
            said = self._said_of(proposal, command, stamp)
            if evolve_plan(state, Entry(command.answers + 1, said)) is not None:
                return said
            problems = ("it cannot follow what the job has done so far",)
        return self._envelope(PlanRejected, stamp, answers=command.answers, version=command.version, reasons=problems)

    def _said_of(self, proposal: PlanProposed, command: JudgeProposal, stamp: Stamp) -> PlanAccepted | QuestionAsked:
        if proposal.makes == "question":
            return self._question(command, stamp, about="input", text=proposal.text)
        if self._submitted.approve_plan and not command.approved:
            asked = {"options": ("yes", "no"), "default": "no"}
            return self._question(command, stamp, about="plan", text=question_about_plan(proposal), **asked)
        return self._accepted(proposal.steps, command.answers, command.version, stamp)

    def _question(self, command: JudgeProposal, stamp: Stamp, **asked: Any) -> QuestionAsked:
        return self._envelope(
            QuestionAsked,
            stamp,
            answers=command.answers,
            by=manager_role(self._team),
            question=f"q-{stamp.id[:8]}",
            expires=stamp.at + timedelta(seconds=self._team.limits.question_seconds),
            **asked,
        )

    def _expand(self, state: JobState, command: ExpandStep, stamp: Stamp, shelf: Shelf) -> PlanExpanded:
        reason, count = command.blocked, 0
        stored: StoredItems | None = None
        if not reason:
            try:
                count, stored = self._counted(state, state.steps[command.step].spec, shelf)
            except (TemplateError, NotAList, NotBrought) as error:
                reason = f"its for_each gives no items: {error}"
        return self._envelope(
            PlanExpanded,
            stamp,
            answers=command.answers,
            step=command.step,
            items=count,
            reason=reason,
            stored=stored,
        )

    def _counted(self, state: JobState, step: Step, shelf: Shelf) -> tuple[int, StoredItems | None]:
        """Return how many items a step has, and where they are if nobody knows that yet."""
        stored = self._scopes.stored(state, step)
        if stored is not None:
            return stored.count, None
        if isinstance(shelf.expanded, StoredItems):
            return shelf.expanded.count, shelf.expanded
        if shelf.expanded is not None:
            return len(self._scopes.keep(state, step, shelf.expanded)), None
        return len(self._scopes.items(state, step, shelf)), None

    def _assign(self, state: JobState, command: Assign, stamp: Stamp, shelf: Shelf) -> TaskAssigned | TaskClosed:
        try:
            return self._assigned(state, command, stamp, shelf)
        except (TemplateError, NotAList, NotBrought, ValidationError) as error:
            return self._cannot_assign(command, stamp, _told(error))

    def _assigned(self, state: JobState, command: Assign, stamp: Stamp, shelf: Shelf) -> TaskAssigned:
        step = command.step
        scope = self._scopes.of_task(state, step, command.index, shelf)
        grant = grant_of(self._submitted, state, step, command.agent, scope, self._labels)
        return self._envelope(
            TaskAssigned,
            stamp,
            task=command.task,
            attempt=command.attempt,
            answers=command.answers,
            deadline=deadline_of(state),
            step=step.step,
            index=command.index,
            label=_label(scope.get("item")),
            role=role_of(command.agent, self._team.team),
            verifier=role_of(verifier_of(self._team, step), self._team.team),
            goal=self._submitted.goal,
            instruction=render(step.do, scope),
            output_schema=output_schema(step),
            criteria=tuple(_filled(criterion, scope) for criterion in step.verify.criteria),
            grant=grant.model_copy(update={"seconds": seconds_for(state, step, stamp.at)}),
            inputs={name: evaluated(value, scope) for name, value in step.inputs.items()},
            feedback=command.feedback,
            earlier=command.earlier,
            taint=self._labels.of_task(state, step, command.task),
            resumes=command.resumes,
            allowances=allowances_of(self._submitted, step),
        )

    def _cannot_assign(self, command: Assign, stamp: Stamp, problem: str) -> TaskClosed:
        reason = f"the task cannot be put into words: {problem}"
        return self._close_task(
            CloseTask(command.task, command.attempt - 1, command.answers, "failed", reason=reason), stamp
        )

    def _answer(self, command: AnswerByDefault, stamp: Stamp) -> QuestionAnswered:
        return self._envelope(
            QuestionAnswered,
            stamp,
            task=command.task,
            attempt=command.attempt,
            answers=command.answers,
            question=command.question,
            answer=command.answer,
            by_default=True,
        )

    def _close_task(self, command: CloseTask, stamp: Stamp) -> TaskClosed:
        return self._envelope(
            TaskClosed,
            stamp,
            task=command.task,
            attempt=command.attempt,
            answers=command.answers,
            outcome=command.outcome,
            stands=command.stands,
            reason=command.reason,
        )

    def _close_job(self, state: JobState, command: CloseJob, stamp: Stamp, shelf: Shelf) -> JobClosed:
        if command.status == "failed" or command.answer is not None:
            return self._closed_job(state, command, stamp, command.answer)
        try:
            result, note = outcome_of(self._scopes, self._submitted, state, shelf)
            reason = "; ".join(filter(None, (command.reason, note)))
            return self._closed_job(state, replace(command, reason=reason), stamp, result)
        except (TemplateError, NotAList, NotBrought, ValidationError) as error:
            return self._cannot_tell(state, command, stamp, _told(error))

    def _cannot_tell(self, state: JobState, command: CloseJob, stamp: Stamp, problem: str) -> JobClosed:
        problem = f"the team's result cannot be told: {problem}"
        reason = f"{command.reason}; {problem}" if command.reason else problem
        status = command.status if command.status == "killed" else "failed"
        return self._closed_job(state, replace(command, status=status, reason=reason), stamp)

    def _closed_job(self, state: JobState, command: CloseJob, stamp: Stamp, result: Json = None) -> JobClosed:
        return self._envelope(
            JobClosed,
            stamp,
            answers=command.answers,
            status=command.status,
            result=result,
            reason=command.reason,
            usage=state.usage,
        )


def _told(error: TemplateError | NotAList | NotBrought | ValidationError) -> str:
    """Return the error as one line that does not repeat what may be a large value."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))} {one['msg']}" for one in error.errors()[:3])
    return str(error)


def _filled(criterion: AnyCriterion, scope: Mapping[str, Json]) -> AnyCriterion:
    """Return the criterion with its templates rendered, as sound as one that stands in a team file.

    :raises TemplateError: a template fails
    :raises ValidationError: what it renders to is no criterion, such as a judge's sentence that is empty
    """
    filled = map_templates(criterion, lambda text: render(text, scope))
    return filled if filled is criterion else type(filled).model_validate(filled.model_dump())


def verifier_of(team: Team, step: Step) -> str:
    """Return the agent that checks the results of ``step``: the one it names, or the team's only verifier."""
    if step.verify.by is not None:
        return step.verify.by
    return next(name for name, agent in team.agents.items() if agent.kind == "verifier")


def _label(item: Json) -> str:
    """Return what people call an item: its path, name, title or id, or the item itself where it is a short text.

    An entry of ``steps.NAME.results`` or ``.failures`` is called as the item that it is about.
    """
    if isinstance(item, dict) and item.keys() in _OF_AN_ITEM:
        return _label(item["item"])
    if isinstance(item, dict):
        item = next((item[key] for key in ("path", "name", "title", "id") if item.get(key) is not None), None)
    text = "" if item is None or isinstance(item, dict | list) else " ".join(str(item).split())
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."
