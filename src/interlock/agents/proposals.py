"""What becomes of a proposal of the manager's model: what is wrong with it, the plan that it makes, what is asked."""

from collections.abc import Iterator, Sequence

from interlock.agents.demands import demand
from interlock.agents.grants import input_texts, pinned_texts
from interlock.agents.plan_problems import plan_problems
from interlock.agents.templates import references
from interlock.protocol.base import canonical_json
from interlock.protocol.commands import JudgeProposal
from interlock.protocol.control import Policy
from interlock.protocol.criteria import templates_of
from interlock.protocol.messages import JobSubmitted, PlanProposed
from interlock.protocol.plan import all_needs, sinks
from interlock.protocol.planning import change_requested, keeping_problems
from interlock.protocol.state import JobState
from interlock.protocol.team import Files, JsonLines, Step, Team, ToolUse, pins_of, tool_of

__all__ = ["completed", "proposal_problems", "question_about_plan", "result_steps_of"]


def proposal_problems(
    submitted: JobSubmitted, policy: Policy, state: JobState, proposal: PlanProposed, command: JudgeProposal
) -> tuple[str, ...]:
    """Return why the proposal at hand is rejected, for the manager's model to read; empty where it is not."""
    if proposal.unreadable:
        return (proposal.unreadable,)
    if not command.approved and (wanted := change_requested(state)):
        return (f"a person wants the plan to be another one: {wanted}",)
    match proposal.makes:
        case "plan":
            return _plan_problems(submitted, policy, state, proposal.steps)
        case "question":
            return tuple(_question_problems(submitted.team, state, proposal))
        case "answer" | "refusal":
            return ("the job has a plan already: make a new version of it, or say that it cannot be done",)


def completed(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps with every need written out, those that their templates imply included.

    :raises TemplateError: a template of theirs cannot be read
    """
    needs = all_needs(steps, {step.step: _implied_needs(step) for step in steps})
    return tuple(step.model_copy(update={"needs": needs[step.step]}) for step in steps)


def result_steps_of(team: Team, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the steps that the result is made of: those that the team's template names, or that none other needs.

    :raises TemplateError: the template cannot be read
    """
    named = _steps_named(team.result) if team.result is not None else ()
    return tuple(named) or sinks(steps)


def question_about_plan(proposal: PlanProposed) -> str:
    """Return what a person is asked before a plan is followed: one line, and one for each step.

    A step is told with all that a yes lets it do: its tools with what is fixed for them, and what it is held to.
    """
    lines = ["may the manager follow this plan?" if proposal.version == 1 else "may the manager follow the new plan?"]
    lines += [proposal.text] if proposal.text else []
    lines += [f"{number}. {_step_in_words(step)}" for number, step in enumerate(proposal.steps, 1)]
    return "\n".join(lines)


def _plan_problems(submitted: JobSubmitted, policy: Policy, state: JobState, steps: Sequence[Step]) -> tuple[str, ...]:
    before = [state.steps[name] for name in state.order]
    problems = plan_problems(
        submitted,
        policy,
        steps,
        [step.spec for step in before] if state.version else None,
        [step.spec.step for step in before if step.accepted],
        state.dropped,
    )
    return problems or keeping_problems(state, completed(steps))


def _question_problems(team: Team, state: JobState, proposal: PlanProposed) -> Iterator[str]:
    if not proposal.text.strip():
        yield "the question is empty"
    if len(state.answers) >= team.limits.plans:
        asked = f"{len(state.answers)} questions were asked and answered, and there may be no more"
        yield f"{asked}: make a plan with what is known, or say that it cannot be done"


def _step_in_words(step: Step) -> str:
    parts = [f"{step.step} by {step.agent}"]
    if step.for_each is not None:
        parts.append(f"for each of {_source_in_words(step.for_each)}")
    if step.needs:
        parts.append(f"after {', '.join(step.needs)}")
    if step.tools:
        parts.append(f"with {' and '.join(map(_use_in_words, step.tools))}")
    told = f"{', '.join(parts)}: {' '.join(step.do.split())}"
    demands = [*([f"fields {', '.join(step.output)}"] if step.output else []), *map(demand, step.verify.criteria)]
    return f"{told} [held to: {'; '.join(demands)}]" if demands else told


def _use_in_words(use: ToolUse) -> str:
    pins = pins_of(use)
    return f"{tool_of(use)} with {canonical_json(dict(pins))}" if pins else tool_of(use)


def _source_in_words(source: object) -> str:
    match source:
        case str():
            return source
        case Files():
            return "the files"
        case JsonLines():
            return source.jsonl
        case _:
            return "a list"


def _implied_needs(step: Step) -> tuple[str, ...]:
    """Return the steps that the templates of ``step`` name."""
    texts = [step.do, *input_texts(step), *pinned_texts(step.tools or ())]
    if isinstance(step.for_each, str):
        texts.append(step.for_each)
    for criterion in step.verify.criteria:
        texts += templates_of(criterion)
    return tuple(dict.fromkeys(name for text in texts for name in _steps_named(text)))


def _steps_named(template: str) -> list[str]:
    paths = (reference.split(".") for reference in sorted(references(template)))
    return [path[1] for path in paths if path[0] == "steps" and len(path) > 1]
