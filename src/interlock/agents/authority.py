"""What an attempt may do: a call judged by its effect class, grant, principles, rules, taint and autonomy.

The order is fixed and each check can only refuse more. Nothing that a text says, whoever wrote it, is an argument here:
what counts is what the plan granted, what the rules and principles say, and where each argument's value comes from.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from interlock.agents.grants import uses_of
from interlock.agents.tools.normal import CallNotNormal, normalise, resolved
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.control import Policy
from interlock.protocol.messages import JobSubmitted, TaskAssigned
from interlock.protocol.permissions import Call, Layer, Permissions, judge_call
from interlock.protocol.principles import DoneCall, Principle, broken_by_call, broken_by_plan, parse_principle
from interlock.protocol.rule_checks import may_ever
from interlock.protocol.taint import Provenance
from interlock.protocol.team import Step, tool_of
from interlock.protocol.tools import Pin, ToolGrant, ToolSpec

__all__ = ["Authority", "Judged", "layers_of", "plan_objections"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What may be done with a call, and why."""

    outcome: Literal["go", "suggest", "ask", "refuse"]
    reason: str
    """In words for the model and for a person."""
    rule: str = ""
    """The rule that decided; empty where something else did."""
    call: Call | None = None
    """The call in the one form in which it was judged, which is the form that the tool gets; None where it has none."""
    grant: int = -1
    """Which of the assignment's tool grants it uses up."""


class Authority:
    """Judges the calls of one attempt."""

    def __init__(self, submitted: JobSubmitted, assignment: TaskAssigned, agent: str) -> None:
        self.catalogue: Mapping[str, ToolSpec] = {spec.name: spec for spec in submitted.tools}
        self._submitted = submitted
        self._assignment = assignment
        self._agent = agent
        self._base = Path(submitted.base)

    @property
    def granted(self) -> tuple[ToolSpec, ...]:
        """The tools that the attempt may call at all."""
        names = dict.fromkeys(grant.tool for grant in self._assignment.grant.tools)
        return tuple(self.catalogue[name] for name in names if name in self.catalogue)

    def principles(self, policy: Policy) -> tuple[Principle, ...]:
        """Return the principles that bind the attempt: the operator's, the team's, and those of the teams around it."""
        return _principles(self._submitted, policy)

    def looks_back(self, policy: Policy) -> bool:
        """Return whether a principle depends on what the job did before."""
        found = map(parse_principle, self.principles(policy))
        return any(one.before is not None or one.after is not None for one in found)

    def judge(
        self,
        policy: Policy,
        name: str,
        arguments: Mapping[str, Json],
        context: Provenance,
        *,
        used: Counter[int],
        done: Sequence[DoneCall] = (),
    ) -> Judged:
        """Return what may be done with a call of the tool ``name``.

        :param used: how many calls went to each of the tool grants so far
        :param done: the calls that the job has made before, for principles of order
        """
        spec = self.catalogue.get(name)
        if spec is None:
            return Judged("refuse", f"there is no tool {name}")
        fitting = self._fitting(spec, arguments, context, used)
        if isinstance(fitting, str):
            return Judged("refuse", fitting)
        index, call = fitting
        broken = broken_by_call(self.principles(policy), call, done)
        if broken is not None:
            return Judged("refuse", str(broken), call=call)
        decision = judge_call(self._layers(policy), call)
        reason = f"{decision.reason} ({decision.rule})" if decision.rule else decision.reason
        if decision.outcome == "deny":
            return Judged("refuse", reason, decision.rule, call)
        return self._by_class(spec, decision.outcome == "ask", Judged("go", reason, decision.rule, call, index))

    def _layers(self, policy: Policy) -> tuple[Layer, ...]:
        own = self._assignment.grant.permissions
        return layers_of(self._submitted, policy, self._agent, self._assignment.step, own)

    def _fitting(
        self, spec: ToolSpec, arguments: Mapping[str, Json], context: Provenance, used: Counter[int]
    ) -> tuple[int, Call] | str:
        """Return the grant that the call fits, with the call in its one form, or why there is none."""
        problem = f"the plan of this step grants no tool {spec.name}"
        for index, grant in enumerate(self._assignment.grant.tools):
            if grant.tool != spec.name:
                continue
            if grant.times is not None and used[index] >= grant.times:
                problem = f"the plan grants {spec.name} {grant.times} times, and these are used up"
                continue
            try:
                return index, self._bound(spec, grant, arguments, context)
            except (CallNotNormal, _NotAsPinned) as error:
                problem = str(error)
        return problem

    def _bound(self, spec: ToolSpec, grant: ToolGrant, arguments: Mapping[str, Json], context: Provenance) -> Call:
        """Return the call with the plan's arguments, normalised; each value beside where it comes from.

        :raises CallNotNormal: it cannot be brought into one form
        :raises _NotAsPinned: an argument is not what the plan fixed
        """
        pins = {name: pin.value for name, pin in grant.pins.items()}
        call = normalise(spec, {**pins, **arguments}, self._base)
        fixed = normalise(spec, {**arguments, **pins}, self._base)
        for name in pins:
            if canonical_json(call.arguments[name]) != canonical_json(fixed.arguments[name]):  # 1 is not true
                raise _NotAsPinned(spec.name, name, fixed.arguments[name])
        normal = {name: Pin(value=fixed.arguments[name], tainted=pin.tainted) for name, pin in grant.pins.items()}
        # What the plan leaves open is looked for as it was given: nobody's text has a path or URL in its one form.
        given = {name: value if name in pins else arguments.get(name, value) for name, value in call.arguments.items()}
        sources = context.sources_of(given, normal, spec)
        return replace(call, sources={**sources, **call.sources}, tainted=context.tainted)

    def _by_class(self, spec: ToolSpec, asks: bool, judged: Judged) -> Judged:
        """Return what the tool's effect class and the job's autonomy make of a call that the rules let pass."""
        autonomy = self._assignment.grant.autonomy
        if spec.effect != "read" and autonomy == "suggest":
            return _as(judged, "suggest", "the job's autonomy is suggest: nothing is done, only noted")
        if asks:
            return _as(judged, "ask", judged.reason)
        if spec.effect == "irreversible":
            return _as(judged, "ask", f"{spec.name} cannot be undone")
        if spec.effect != "read" and autonomy == "ask":
            return _as(judged, "ask", "the job's autonomy is ask: each effect needs a yes")
        return judged


class _NotAsPinned(Exception):
    """A call with another value than the plan fixed."""

    def __init__(self, tool: str, argument: str, value: Json) -> None:
        super().__init__(f"the plan fixes {argument} of {tool} to {value!r}")


def layers_of(
    submitted: JobSubmitted, policy: Policy, agent: str, step: str, own: Permissions | None = None
) -> tuple[Layer, ...]:
    """Return the layers of rules that bind a call of ``agent`` in ``step``, the operator's first.

    Their folders are resolved through the links that there are right now.
    """
    team = submitted.team
    steps = (one.permissions for one in team.plan if one.step == step)
    layers = (
        Layer("operator", policy.permissions, policy.base),
        *_layers_around(submitted),
        Layer(f"team {team.team}", team.permissions, submitted.base),
        Layer(f"agent {agent}", team.agents[agent].permissions, submitted.base),
        Layer(f"step {step}", own or next(steps, Permissions()), submitted.base),
    )
    return tuple(map(resolved, layers))


def _layers_around(submitted: JobSubmitted) -> Iterator[Layer]:
    """Yield the layers of the teams around the job's own, the outermost first."""
    for bounds in submitted.bounds:
        names = (f"team {bounds.team}", f"agent {bounds.agent} of team {bounds.team}", f"step of team {bounds.team}")
        for position, permissions in enumerate(bounds.permissions):
            yield Layer(names[min(position, len(names) - 1)], permissions, bounds.base)


def _principles(submitted: JobSubmitted, policy: Policy) -> tuple[Principle, ...]:
    around = (principle for bounds in submitted.bounds for principle in bounds.principles)
    return (*policy.principles, *around, *submitted.team.principles)


def plan_objections(submitted: JobSubmitted, policy: Policy, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return why a plan must not run: the principles that it breaks, and the tools that it never could call."""
    catalogue = {spec.name: spec for spec in submitted.tools}
    tools = {name: agent.tools for name, agent in submitted.team.agents.items()}
    principles = _principles(submitted, policy)
    broken = (str(one) for one in broken_by_plan(principles, steps, tools, catalogue))
    return (*broken, *_hopeless(submitted, policy, steps, catalogue))


def _hopeless(
    submitted: JobSubmitted, policy: Policy, steps: Sequence[Step], catalogue: Mapping[str, ToolSpec]
) -> Iterator[str]:
    for step in steps:
        layers = layers_of(submitted, policy, step.agent, step.step, step.permissions)
        for use in uses_of(step, submitted.team.agents[step.agent]):
            name = tool_of(use)
            if name not in catalogue:
                yield f"step {step.step}: there is no tool {name}"
            elif not may_ever(layers, catalogue[name], {}):
                yield f"step {step.step}: no call of {name} can ever be allowed"


def _as(judged: Judged, outcome: Literal["suggest", "ask"], reason: str) -> Judged:
    return Judged(outcome, reason, judged.rule, judged.call, judged.grant)
