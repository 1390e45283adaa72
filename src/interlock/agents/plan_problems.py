"""What is wrong with a plan that a manager's model proposes, everything by name, in words that it can act on.

A proposed plan is held to what a team file is held to, and to more: it can only use what the team has, and takes no
liberty that is a person's to give. A new version of a plan keeps what was done, and demands no less than the last one.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from interlock.agents.authority import layers_of, plan_objections
from interlock.agents.plan_checks import Place, PlanChecks
from interlock.agents.planning_form import MAX_STEPS
from interlock.agents.spelling import did_you_mean
from interlock.agents.tools.normal import CallNotNormal, normal_value
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.control import Policy
from interlock.protocol.criteria import AnyCriterion, CommandCriterion, criterion_label, map_templates
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.rule_checks import may_ever
from interlock.protocol.team import Agent, Files, Handover, JsonLines, PinnedTool, Step, ToolUse, pins_of, tool_of
from interlock.protocol.tools import ToolSpec

__all__ = ["plan_problems"]

_MOST_TOLD = 20
"""The most problems of one plan that are told."""
_SHOWN = 60
_STEP_NAMED = re.compile(r"\bsteps(?:\.[a-z][a-z0-9_]*|\[['\"][a-z][a-z0-9_-]*['\"]\])")


def plan_problems(
    submitted: JobSubmitted,
    policy: Policy,
    steps: Sequence[Step],
    before: Sequence[Step] | None = None,
    kept: Collection[str] = (),
    gone: Collection[str] = (),
) -> tuple[str, ...]:
    """Return everything that is wrong with ``steps`` as the plan of a job; empty where they can be followed.

    :param before: the steps of the version that they follow on; None for a first plan
    :param kept: those of them of which something was accepted, which have to stay
    :param gone: steps of still earlier versions, whose names cannot be used again
    """
    known = {step.step: step for step in before or ()}
    new = [step for step in steps if step.step not in known]
    if not steps:
        return ("the plan has no steps",)
    if len(new) > MAX_STEPS:
        return (f"the plan has {len(new)} new steps, and at most {MAX_STEPS} are allowed",)
    problems = [*_unfit(submitted, steps), *_liberties(submitted, new, before or ())]
    problems += _versions(steps, known, kept, gone)
    if not problems:  # these take for granted that agents and needs are there
        problems += _tools(submitted, policy, new)
        problems += plan_objections(submitted, policy, _complete(submitted, steps))
    return tuple(dict.fromkeys(problems))[:_MOST_TOLD]


def _unfit(submitted: JobSubmitted, steps: Sequence[Step]) -> Iterator[str]:
    """Yield what would be wrong in a team file too."""
    for flaw in _checked(submitted, steps).flaws:
        if flaw.at[:1] == ("plan",):
            yield _at(steps, flaw.at) + flaw.message
        elif flaw.at[:1] == ("result",):
            yield f"the team's result names what the plan does not have: {flaw.message}: keep that step"


def _checked(submitted: JobSubmitted, steps: Sequence[Step]) -> PlanChecks:
    team = submitted.team.model_copy(update={"plan": tuple(steps)})
    checks = PlanChecks(team, {*submitted.inputs, *submitted.stored})
    checks.run()
    return checks


def _complete(submitted: JobSubmitted, steps: Sequence[Step]) -> list[Step]:
    needs = _checked(submitted, steps).needs
    return [step.model_copy(update={"needs": needs[step.step]}) for step in steps]


def _at(steps: Sequence[Step], at: Place) -> str:
    """Return where something stands in a plan, by the step's name."""
    name = steps[int(at[1])].step
    match at[2:]:
        case () | ("step",):
            return f"step {name}: "
        case ("verify", "by"):
            return f"step {name}: verify_by: "
        case ("verify", "criteria", int(number), *_):
            return f"step {name}: criterion {number + 1}: "
        case (key, *_):
            return f"step {name}: {key}: "
        case _:
            return ""


# --- what a person alone can decide


def _liberties(submitted: JobSubmitted, new: Sequence[Step], before: Sequence[Step]) -> Iterator[str]:
    inherited = {_demand(criterion) for step in before for criterion in step.verify.criteria}
    for step in new:
        if isinstance(step.for_each, Files | JsonLines):
            yield f"step {step.step}: for_each: files are inputs of a job: name the input, as {{{{ inputs.NAME }}}}"
        if step.outside is not None:
            yield f"step {step.step}: outside: what comes from outside is for the team file to say: leave it out"
        for criterion in step.verify.criteria:
            if isinstance(criterion, CommandCriterion) and _demand(criterion) not in inherited:
                yield f"step {step.step}: a command can only be demanded by a team file: use another criterion"
        names = [step.agent, *([step.on_failure.agent] if isinstance(step.on_failure, Handover) else [])]
        for name in names:
            if agent := submitted.team.agents.get(name):
                yield from _beyond(submitted, step, name, agent)
        if step.agent not in submitted.team.agents:
            yield from _missing_tools(submitted, step)


def _missing_tools(submitted: JobSubmitted, step: Step) -> Iterator[str]:
    """Yield which tools of a step there are not at all, where its agent cannot say."""
    known = [spec.name for spec in submitted.tools]
    for name in map(tool_of, step.tools or ()):
        if name not in known:
            hint = did_you_mean(name, known) or f"; tools: {', '.join(known) or 'none'}"
            yield f"step {step.step}: tools: there is no tool {name!r}{hint}"


def _beyond(submitted: JobSubmitted, step: Step, doer: str, agent: Agent) -> Iterator[str]:
    """Yield which tools a step uses that its agent has not, or not so."""
    own = {tool_of(use): use for use in agent.tools}
    has = f"it has {', '.join(own)}" if own else "it has none"
    for use in step.tools or ():
        name = tool_of(use)
        if name not in own:
            hint = did_you_mean(name, own) or f"; {has}"
            yield f"step {step.step}: tools: agent {doer!r} has no tool {name!r}{hint}"
            continue
        given, fixed = pins_of(use), pins_of(own[name])
        for argument, value in fixed.items():
            if argument not in given or canonical_json(given[argument]) != canonical_json(value):
                yield (
                    f"step {step.step}: tools: {name}: the team fixes {argument} to {_short(value)}, "
                    "and the plan cannot change that"
                )
        if submitted.taint and given.keys() - fixed.keys():
            yield (
                f"step {step.step}: tools: {name}: the goal comes from outside, so that the plan can pin nothing: "
                "leave pin empty"
            )
        if not _fewer(use, own[name]):
            yield f"step {step.step}: tools: {name}: the team allows fewer calls than the plan"


def _fewer(use: ToolUse, own: ToolUse) -> bool:
    most = own.times if isinstance(own, PinnedTool) else None
    wanted = use.times if isinstance(use, PinnedTool) else None
    return most is None or (wanted is not None and wanted <= most)


# --- tools


def _tools(submitted: JobSubmitted, policy: Policy, new: Sequence[Step]) -> Iterator[str]:
    """Yield which pins name no argument, are no value for it, or leave no call that a rule could allow."""
    catalogue = {spec.name: spec for spec in submitted.tools}
    for step in new:
        layers = layers_of(submitted, policy, step.agent, step.step, step.permissions)
        for use in step.tools or ():
            spec, pins = catalogue.get(tool_of(use)), pins_of(use)
            if spec is None or not pins:
                continue  # the one is said by the principles' check, the other judged there
            problem = _pin_problem(spec, pins, Path(submitted.base))
            if isinstance(problem, str):
                yield f"step {step.step}: tools: {spec.name}: {problem}"
            elif not may_ever(layers, spec, problem):
                yield f"step {step.step}: tools: no call of {spec.name} with what is pinned can ever be allowed"


def _pin_problem(spec: ToolSpec, pins: Mapping[str, Json], base: Path) -> dict[str, Json] | str:
    """Return the pinned values that are known by now, in their one form; or what is wrong with one."""
    properties = spec.parameters.get("properties")
    known = properties if isinstance(properties, dict) else {}
    for name in pins:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has {', '.join(known) or 'none'}"
            return f"it has no argument {name!r}{hint}"
    fixed = {name: value for name, value in pins.items() if "{{" not in canonical_json(value)}
    try:
        return {name: normal_value(spec, name, value, base) for name, value in fixed.items()}
    except CallNotNormal as error:
        return str(error)


# --- versions


def _versions(
    steps: Sequence[Step], before: Mapping[str, Step], kept: Collection[str], gone: Collection[str]
) -> Iterator[str]:
    there = {step.step: step for step in steps}
    for name in sorted(set(kept) & before.keys() - there.keys()):
        yield f"step {name} has accepted results: it stays in the plan, as it was"
    for step in steps:
        if step.step in gone:
            yield f"step {step.step}: an earlier plan had a step of this name: give it another one"
        elif step.step in before and _differs(step, before[step.step]):
            yield f"step {step.step} was in the plan before and stays as it was: give a changed step another name"
    new = [step for step in steps if step.step not in before]
    for name, step in before.items():
        if name not in there and name not in kept:
            yield from _loosened(step, new)


def _differs(step: Step, other: Step) -> bool:
    """Whether a step is not what it was; needs that its templates imply may be written out or not."""
    same = step.model_copy(update={"needs": ()}) == other.model_copy(update={"needs": ()})
    return not (same and {*step.needs} <= {*other.needs})


def _loosened(dropped: Step, new: Sequence[Step]) -> Iterator[str]:
    """Yield that no new step demands all that a step did which is left out."""
    wanted = {_demand(criterion): criterion_label(criterion) for criterion in dropped.verify.criteria}
    fields = dropped.output or {}
    missing: list[str] | None = None
    for step in new:
        demanded = {_demand(criterion) for criterion in step.verify.criteria}
        lacks = [label for demand, label in wanted.items() if demand not in demanded]
        lacks += [f"field {name}" for name, kind in fields.items() if (step.output or {}).get(name) != kind]
        if not lacks:
            return
        missing = lacks if missing is None or len(lacks) < len(missing) else missing
    told = f": {', '.join(missing)} is missing" if missing else ""
    yield (
        f"step {dropped.step} is left out, and no new step demands all that it did{told}: "
        f"name {dropped.step} in 'replaces' of the step that stands in its place"
    )


def _demand(criterion: AnyCriterion) -> str:
    """Return what a criterion demands, whatever the steps are called that it names."""
    plain = map_templates(criterion, lambda text: _STEP_NAMED.sub("steps.*", text))
    return canonical_json(plain.model_dump(mode="json", exclude={"name"}))


def _short(value: Json) -> str:
    text = canonical_json(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
