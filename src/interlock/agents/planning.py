"""How a manager's model comes to a plan: what it is asked, on which occasion, and what its answer is taken for."""

from collections.abc import Iterator
from dataclasses import replace

from interlock.agents.grants import Labels
from interlock.agents.planning_form import plan_schema
from interlock.agents.planning_prompt import Occasion, planning_messages
from interlock.agents.planning_reading import read_proposal
from interlock.agents.proposer import ProposalOutcome
from interlock.agents.recording import ModelRecorder
from interlock.agents.thinking import NO_TRACING, seed_of, temperature_of, think
from interlock.backends.chat import FREE, ChatModel, ChatReply, ChatRequest, Meter
from interlock.backends.errors import BudgetSpent, ModelError
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Usage, canonical_json
from interlock.protocol.commands import Propose
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.state import JobState, StepState
from interlock.protocol.team import Agent, ModelSettings, Team

__all__ = ["ModelProposer", "ask_for_plan", "manager_of", "occasion_of", "plans_by_itself"]

_MANAGER = "manager"
"""What the manager of a team is called whose file names none."""
_REASONS = 3
"""The most failed tasks of a step that are told of."""
_SHOWN = 300
"""The most characters of a reason, and of an instruction, that are told."""
_LENGTH = "length"


def manager_of(team: Team) -> tuple[str, ModelSettings]:
    """Return what the team's manager is called, and which model it plans with: the team's, unless it has its own."""
    named = ((name, agent) for name, agent in team.agents.items() if agent.kind == "manager")
    name, agent = next(named, (_MANAGER, None))
    return name, (agent.model if agent else None) or team.model


def plans_by_itself(team: Team) -> bool:
    """Whether a job of ``team`` may need its manager's model: for a plan, or for a new version of the file's."""
    return not team.plan or any(step.on_failure == "replan" for step in team.plan)


class ModelProposer:
    """Asks the model of one job's manager; a :class:`~interlock.agents.proposer.Proposer`."""

    def __init__(
        self, model: ChatModel, settings: ModelSettings, tracing: Tracing = NO_TRACING, meter: Meter = FREE
    ) -> None:
        """Ask ``model``, which stays open; ``meter`` counts what that costs."""
        self._model, self._settings, self._tracing, self._meter = model, settings, tracing, meter

    async def propose(self, state: JobState, command: Propose) -> ProposalOutcome:
        """Return what the model makes of the goal of the job in ``state``; what it cannot is told as unreadable."""
        if state.submitted is None:
            return ProposalOutcome(unreadable="there is no goal yet")
        occasion = occasion_of(state, state.submitted, command)
        return await ask_for_plan(occasion, self._model, self._settings, self._tracing, self._meter)


async def ask_for_plan(
    occasion: Occasion, model: ChatModel, settings: ModelSettings, tracing: Tracing = NO_TRACING, meter: Meter = FREE
) -> ProposalOutcome:
    """Return what a model makes of a goal.

    A model that does not answer gives an outcome that is unreadable and says so, and a spent budget one that says that.
    """
    submitted = occasion.submitted
    recorder = ModelRecorder(model)
    request = ChatRequest(
        messages=planning_messages(occasion, _manager(submitted.team)),
        temperature=temperature_of(settings.temperature, occasion.tries + 1),
        max_tokens=settings.max_tokens,
        schema=plan_schema(submitted.team, occasion.before),
        schema_name="proposal",
        seed=seed_of(submitted.job, "plan", occasion.version, occasion.tries, len(occasion.answers)),
        meter=meter,
    )
    usage, spent = Usage(), ""
    try:
        reply = await think(recorder, request, tracing, submitted.job)
        usage, outcome = reply.usage, _read(reply, occasion)
    except BudgetSpent as problem:
        spent, outcome = problem.reason, ProposalOutcome(unreadable=problem.reason)
    except ModelError as problem:
        outcome = ProposalOutcome(unreadable=f"the manager's model gave no answer: {problem}")
    return replace(outcome, usage=usage, exchanges=recorder.exchanges, spent=spent)


def _manager(team: Team) -> Agent | None:
    return team.agents.get(manager_of(team)[0])


def _read(reply: ChatReply, occasion: Occasion) -> ProposalOutcome:
    submitted = occasion.submitted
    outcome = read_proposal(reply.text, submitted.team, submitted.tools, occasion.before, occasion.kept)
    if outcome.unreadable and reply.finish_reason == _LENGTH:
        cut = "your answer was cut off, since it was too long: make a plan of fewer steps, in fewer words"
        return ProposalOutcome(unreadable=cut)
    return outcome


def occasion_of(state: JobState, submitted: JobSubmitted, command: Propose) -> Occasion:
    """Return what the model has to know for ``command`` of the job in ``state``."""
    steps = [state.steps[name] for name in state.order]
    asked = ((one.asked.text, one.answer) for one in state.answers)
    labels = Labels(submitted.team)
    return Occasion(
        submitted,
        command.version,
        command.tries,
        command.reasons,
        tuple((text, "; ".join(filter(None, (said.answer, said.note)))) for text, said in asked if said),
        tuple(step.spec for step in steps),
        frozenset(step.spec.step for step in steps if step.accepted),
        tuple(_account(state, submitted, step, labels) for step in steps),
    )


def _account(state: JobState, submitted: JobSubmitted, step: StepState, labels: Labels) -> str:
    """Return what became of a step as one line; the words of whoever saw text from outside are not in it."""
    spec = step.spec
    outside = bool(submitted.taint or labels.of_template(state, spec, f"{{{{ steps['{spec.step}'].outputs }}}}"))
    counts = ((step.accepted, "accepted"), (step.failed, "failed"), (step.cancelled, "cancelled"))
    told = ", ".join(f"{count} {word}" for count, word in counts if count) or "nothing was done"
    fields = f", output {canonical_json(dict(spec.output))}" if spec.output else ""
    why = "; ".join(_reasons(state, step, outside=outside))
    head = f"{spec.step} by {spec.agent}: {' '.join(spec.do.split())[:_SHOWN]}{fields}: {told}"
    return f"{head}, because of this: {why}" if why else head


def _reasons(state: JobState, step: StepState, *, outside: bool) -> Iterator[str]:
    """Yield why tasks of a step failed, a few of them."""
    if step.blocked:
        yield step.blocked[:_SHOWN]
    failed = [task for task in state.tasks_of(step.spec.step) if task.outcome == "failed"]
    if not outside:
        yield from dict.fromkeys(task.reason[:_SHOWN] for task in failed[:_REASONS] if task.reason)
        return
    verdicts = (task.current.verdict for task in failed if task.attempts)
    broken = (one.criterion for verdict in verdicts if verdict for one in verdict.criteria if one.holds is not True)
    # Beyond its kind, what a criterion is called may hold words of the item.
    for kind in dict.fromkeys(label.partition(":")[0][:40] for label in broken):
        yield f"{kind} did not hold"
