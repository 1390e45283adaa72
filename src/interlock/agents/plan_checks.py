"""Whether a plan fits its team: names that are not there, templates, patterns, schemas, circles, what nobody verifies.

The same for the plan of a team file and for one that a manager proposes. What is wrong is told with where it stands
within the team; whoever has a file knows the line.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from interlock.agents.plan_variables import Use, Variables
from interlock.agents.spelling import did_you_mean
from interlock.agents.templates import TemplateInvalid, find_references, is_expression
from interlock.protocol.base import Json
from interlock.protocol.criteria import AnyCriterion, JsonSchemaCheck, RegexCheck, SchemaCriterion, templates_of
from interlock.protocol.plan import PlanCycle, PlanProblem, StepDefinedTwice, UnknownNeed, all_needs, check_graph, sinks
from interlock.protocol.team import Handover, InputType, Step, Team, pins_of

__all__ = ["Flaw", "Place", "PlanChecks"]

_MAX_REPETITIONS = 100_000

Place: TypeAlias = tuple[str | int, ...]
"""Where something stands in a team: keys and indices from its top."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong."""

    at: Place
    message: str
    """What is wrong, and what would be right."""
    line: int = 1
    """Within the text that stands there, from 1."""
    step: str = ""
    """The step that an earlier one already has the name of, where that is what is wrong."""
    first: int = 0
    """Which one that is, from 0."""


class PlanChecks:
    """Checks the plan of one team, its agents' pins and its result; what is found out is there once it has run."""

    def __init__(self, team: Team, given: Collection[str] | None = None, mended: Collection[Place] = ()) -> None:
        """Check ``team``.

        :param given: the inputs of its job; None where there is none yet
        :param mended: where the team is not what a person wrote, so that nothing is said of it
        """
        self.flaws: list[Flaw] = []
        self.needs: dict[str, tuple[str, ...]] = {}
        """For each step the steps that must be over before it, those that its templates name included."""
        self.result_steps: tuple[str, ...] = ()
        """The steps that the job's result is made of; empty where there are no steps yet."""
        self.inputs_used: set[str] = set()
        """The inputs that templates name."""
        self._team = team
        self._mended = mended
        self._variables = Variables(team, given)
        self._implied: dict[str, dict[str, tuple[Place, int]]] = {step.step: {} for step in team.plan}
        self._guessed_steps = any(self.is_mended("plan", index, "step") for index in range(len(team.plan)))
        self._agents_left_out = any(at[0] == "agents" for at in mended if len(at) in {1, 2})

    def run(self) -> None:
        """Check everything, in the order of the team as far as that is possible."""
        self._agent_pins()
        for index, step in enumerate(self._team.plan):
            self._step(("plan", index), step)
        named = [] if self._team.result is None else self._template(self._team.result, Use(None), "result")
        self._graph(named)

    def is_mended(self, *at: str | int) -> bool:
        """Return whether what stands at a place, or something around it, is not what a person wrote."""
        return any(at[:length] in self._mended for length in range(len(at) + 1))

    def _say(self, message: str, *at: str | int, line: int = 1) -> None:
        if not self.is_mended(*at):
            self.flaws.append(Flaw(at, message, line))

    # --- one step

    def _step(self, at: Place, step: Step) -> None:
        self._agent(step.agent, "worker", *at, "agent")
        if isinstance(step.on_failure, Handover):
            self._agent(step.on_failure.agent, "worker", *at, "on_failure", "agent")
            if step.on_failure.agent == step.agent:
                message = f"{step.agent!r} cannot take over from itself: name another worker, or raise 'attempts'"
                self._say(message, *at, "on_failure", "agent")
        self._inputs(at, step)
        self._verify(at, step)
        for name, kind in (step.output or {}).items():
            if not isinstance(kind, str):
                self._schema(kind, *at, "output", name)
        for index, criterion in enumerate(step.verify.criteria):
            self._criterion((*at, "verify", "criteria", index), step, criterion)
        self._templates(at, step)

    def _agent(self, name: str, kind: Literal["worker", "verifier"], *at: str | int) -> None:
        agent = self._team.agents.get(name)
        there = self._agents(kind)
        listed = f"{kind}s: {', '.join(there)}" if there else f"the team has no {kind}"
        if agent is None:
            if not self._agents_left_out:
                self._say(f"there is no agent {name!r}" + (did_you_mean(name, there) or f"; {listed}"), *at)
        elif name not in there and not self.is_mended("agents", name, "kind"):
            self._say(f"agent {name!r} is a {agent.kind}, and this must be a {kind}; {listed}", *at)

    def _agents(self, kind: Literal["worker", "verifier"]) -> list[str]:
        """Return the agents of a kind; a team within the team does work as a worker does."""
        kinds = {"worker", "team"} if kind == "worker" else {kind}
        return [name for name, agent in self._team.agents.items() if agent.kind in kinds]

    def _inputs(self, at: Place, step: Step) -> None:
        """Check what a step gives to the team that does it."""
        agent = self._team.agents.get(step.agent)
        if agent is not None and agent.kind != "team" and step.inputs:
            self._say(f"agent {step.agent!r} is a {agent.kind}: only a team is given inputs", *at, "inputs")
        if agent is None or not isinstance(agent.team, Team):
            return
        declared, name = agent.team.inputs, agent.team.team
        for given, value in step.inputs.items():
            spec = declared.get(given)
            if declared and spec is None:
                hint = did_you_mean(given, declared) or f"; its inputs: {', '.join(declared)}"
                self._say(f"team {name!r} has no input {given!r}{hint}", *at, "inputs", given)
            elif spec is not None and not _is_template(value) and not _fits(spec.type, value):
                self._say(f"input {given!r} of team {name!r} is {_type_named(spec.type)}", *at, "inputs", given)
        missing = [
            one for one, spec in declared.items() if one not in step.inputs and spec.required and spec.default is None
        ]
        if missing:
            wanted = ", ".join(map(repr, missing))
            where: Place = (*at, "inputs") if step.inputs else (*at, "agent")
            self._say(f"team {name!r} requires the input {wanted}: give it in the step's 'inputs'", *where)

    def _verify(self, at: Place, step: Step) -> None:
        verifiers = self._agents("verifier")
        if step.verify.by is not None:
            self._agent(step.verify.by, "verifier", *at, "verify", "by")
        elif len(verifiers) > 1:
            message = (
                f"'by' is left out, and the team has {len(verifiers)} verifiers ({', '.join(verifiers)}): name one"
            )
            self._say(message, *at, "verify")
        if step.output is None and not step.verify.criteria:
            self._unless_mended(at, f"nothing of step {step.step!r} can be verified: give it 'output' or criteria")

    def _unless_mended(self, at: Place, message: str) -> None:
        if not any(self.is_mended(*at, *inner) for inner in (("output",), ("verify", "criteria"))):
            self._say(message, *at)

    # --- criteria

    def _criterion(self, at: Place, step: Step, criterion: AnyCriterion) -> None:
        name = getattr(criterion, "field", None)
        if name is not None and not self.is_mended(*at[:2], "output"):
            self._field(name, step, *at, "field")
        match criterion:
            case RegexCheck():
                self._pattern(criterion.pattern, *at, "pattern")
            case JsonSchemaCheck() | SchemaCriterion():
                self._schema(criterion.schema_, *at, "schema")
            case _:
                pass

    def _field(self, name: str, step: Step, *at: str | int) -> None:
        first, *deeper = name.split(".")
        if step.output is None:
            self._say(f"the output of step {step.step!r} is text, so there is no field {name!r}", *at)
        elif first not in step.output:
            known = f"; fields: {', '.join(step.output)}"
            self._say(f"the output has no field {first!r}" + (did_you_mean(first, step.output) or known), *at)
        elif deeper and isinstance(kind := step.output[first], str) and not kind.endswith("[]"):
            self._say(f"the field {first!r} is a {kind}: there is nothing deeper in it", *at)

    def _pattern(self, pattern: str, *at: str | int) -> None:
        import regex  # noqa: PLC0415  (few teams have patterns)

        if _repetitions(pattern) > _MAX_REPETITIONS:  # compiling writes these out, in gigabytes if need be
            self._say(f"this pattern repeats too much: all its {{n}} together at most {_MAX_REPETITIONS} times", *at)
            return
        try:
            regex.compile(pattern)
        except (regex.error, RecursionError, OverflowError, ValueError) as error:
            self._say(f"this is no regular expression: {error}", *at)

    def _schema(self, schema: Mapping[str, Json], *at: str | int) -> None:
        from jsonschema import Draft202012Validator  # noqa: PLC0415  (takes 0.1 s; few teams have schemas)
        from jsonschema.exceptions import SchemaError  # noqa: PLC0415

        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            self._say(f"this is no JSON Schema (draft 2020-12): {error.message[:200]}", *at, *error.absolute_path)

    # --- templates

    def _templates(self, at: Place, step: Step) -> None:
        use = Use(step)
        self._template(step.do, use, *at, "do")
        for place, text in _strings(step.inputs, (*at, "inputs")):
            self._template(text, use, *place)
        self._pins(at, step)
        if isinstance(step.for_each, str):
            self._template(step.for_each, Use(step, item=False), *at, "for_each")
            self._list_expression(step.for_each, *at, "for_each")
        for index, criterion in enumerate(step.verify.criteria):
            inside = (*at, "verify", "criteria", index)
            texts = set(templates_of(criterion))
            for place, text in _strings(criterion.model_dump(mode="json"), inside):
                if text in texts:
                    self._template(text, use, *place)

    def _pins(self, at: Place, step: Step) -> None:
        """Check the templates of what a step pins, and of what its agent does."""
        for index, use in enumerate(step.tools or ()):
            for place, text in _strings(pins_of(use), (*at, "tools", index, "pin")):
                self._template(text, Use(step), *place)

    def _agent_pins(self) -> None:
        for name, agent in self._team.agents.items():
            for index, use in enumerate(agent.tools):
                for place, text in _strings(pins_of(use), ("agents", name, "tools", index, "pin")):
                    self._agent_pin(text, *place)

    def _agent_pin(self, text: str, *at: str | int) -> None:
        if self.is_mended(*at):
            return
        known = len(self.flaws)
        self._template(text, Use(None), *at)
        if len(self.flaws) == known and "steps" in {one.path[0] for one in find_references(text)}:
            self._say("what an agent pins holds in every step: pin what comes from 'steps' in the step's tools", *at)

    def _list_expression(self, template: str, *at: str | int) -> None:
        try:
            is_one = is_expression(template)
        except TemplateInvalid:
            return  # said already
        if not is_one:
            self._say('this gives text, not a list: expected one "{{ expression }}" and nothing around it', *at)

    def _template(self, template: str, use: Use, *at: str | int) -> list[str]:
        """Check a template and note what it implies; return the steps that it names."""
        named: list[str] = []
        if self.is_mended(*at):
            return named
        try:
            references = find_references(template)
        except TemplateInvalid as error:
            self._say(f"this is no template: {error.reason}", *at, line=error.line)
            return named
        for reference in references:
            match reference.path:
                case ("inputs", name, *_):
                    self.inputs_used.add(name)
                case ("steps", name, *_) if name in self._implied and (use.step is None or name != use.step.step):
                    named.append(name)
                    if use.step is not None:
                        self._implied[use.step.step].setdefault(name, (at, reference.line))
                case _:
                    pass
            problem = self._variables.problem(reference.path, use)
            if problem and not (self._guessed_steps and reference.path[0] == "steps"):
                self._say(problem, *at, line=reference.line)
        return named

    # --- the graph

    def _graph(self, named: Sequence[str]) -> None:
        steps = self._team.plan
        self.needs = needs = all_needs(steps, self._implied)
        for problem in check_graph(steps, needs):
            self._graph_problem(problem)
        in_result = tuple(step.step for step in steps if step.step in named)
        self.result_steps = in_result or sinks(steps, needs)

    def _graph_problem(self, problem: PlanProblem) -> None:
        at: Place = ("plan", problem.index)
        match problem.error:
            case StepDefinedTwice() as error:
                if not self.is_mended(*at, "step"):
                    self.flaws.append(Flaw((*at, "step"), str(error), step=error.step, first=error.first))
            case UnknownNeed() as error if not self._guessed_steps:
                known = f"; steps: {', '.join(error.known)}"
                message = f"there is no step {error.need!r}" + (did_you_mean(error.need, error.known) or known)
                self._say(message, *self._need_at(at, error.need))
            case PlanCycle() as error:
                self._cycle(at, error)
            case _:
                pass

    def _cycle(self, at: Place, error: PlanCycle) -> None:
        step, need = error.path[:2]
        implied = self._implied[step].get(need)
        if need in self._team.plan[int(at[1])].needs or implied is None:
            self._say(str(error), *self._need_at(at, need))
        else:
            self.flaws.append(Flaw(implied[0], str(error), implied[1]))

    def _need_at(self, at: Place, need: str) -> Place:
        needs = self._team.plan[int(at[1])].needs
        return (*at, "needs", needs.index(need)) if need in needs else at


def _is_template(value: Json) -> bool:
    return isinstance(value, str) and "{{" in value


_TYPES: Mapping[InputType, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "files": (list,),
    "jsonl": (list,),
}


def _fits(kind: InputType, value: Json) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _type_named(kind: InputType) -> str:
    return "a list" if kind in {"files", "jsonl"} else f"of type {kind}"


def _strings(value: Any, at: Place) -> Iterator[tuple[Place, str]]:
    """Yield every text inside ``value`` with where it stands."""
    match value:
        case str():
            yield at, value
        case dict() | list():
            pairs: Iterable[tuple[str | int, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in pairs:
                yield from _strings(inner, (*at, key))
        case _:
            pass


def _repetitions(pattern: str) -> int:
    """Return at least how often the most repeated part of a regular expression is repeated."""
    counts = (int(digits[:9]) for digits in re.findall(r"\{([0-9]+)", pattern))
    return math.prod(count for count in counts if count)
