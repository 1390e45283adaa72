"""What ``interlock permissions`` does: shows layers and rules, and says which of them decides a call."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interlock.agents.grants import uses_of
from interlock.agents.spelling import did_you_mean
from interlock.agents.tools.catalogue import catalogue
from interlock.agents.tools.normal import CallNotNormal, normalise, resolved
from interlock.protocol.base import Json
from interlock.protocol.permissions import Call, Decision, Layer, Permissions, judge_call, rule_text
from interlock.protocol.principles import Principle, broken_by_call, parse_principle
from interlock.protocol.rule_checks import may_ever
from interlock.protocol.team import Agent, PinnedTool, Step, Team, tool_of
from interlock.protocol.tools import ToolSpec
from interlock.runtime.policyfile import load_policy
from interlock.runtime.show import print_out
from interlock.runtime.team_tools import team_layers
from interlock.runtime.teamfile import load_team

__all__ = ["EXIT_OF_OUTCOME", "CallUnreadable", "Question", "explain", "show_permissions"]

EXIT_OF_OUTCOME = {"allow": 0, "deny": 1, "ask": 3}
"""The exit status for what the rules say of a call."""

_NAME = re.compile(r"\s*([A-Za-z][A-Za-z0-9_.-]*)\s*(\(.*\))\s*", re.DOTALL)


class CallUnreadable(ValueError):
    """What is to be explained is no call of a tool of the team, by an agent or in a step of it."""


@dataclass(frozen=True)
class Question:
    """Which call is to be explained."""

    call: str
    """As in Python: ``web.fetch("https://example.org/")``, every argument a literal."""
    agent: str | None = None
    step: str | None = None
    tainted: bool = False
    """Whether text from outside is in the context."""


@dataclass(frozen=True)
class _Scene:
    """A team, its tools and the layers of rules that bind one agent in one step."""

    team: Team
    base: Path
    tools: Mapping[str, ToolSpec]
    operator: Layer | None
    principles: Sequence[Principle]

    def layers(self, agent: str | None, step: Step | None) -> list[Layer]:
        own = team_layers(self.team, self.base, agent, step)
        return [self.operator, *own] if self.operator is not None else own


def show_permissions(path: Path, policy: Path | None, *, as_json: bool) -> int:
    """Print all rules of a team and which tools each of its steps may call; return the exit status.

    :raises TeamFileInvalid: the team file has mistakes
    :raises PolicyFileInvalid: the operator's has
    """
    scene = _scene(path, policy)
    team = scene.team
    layers = scene.layers(None, None)
    layers += [team_layers(team, scene.base, name)[-1] for name in team.agents]
    layers += [team_layers(team, scene.base, None, step)[-1] for step in team.plan]
    steps = {step.step: _tools_of(scene, step) for step in team.plan}
    if as_json:
        rules = {
            layer.name: layer.permissions.model_dump(mode="json")
            for layer in layers
            if layer.permissions != Permissions()
        }
        print_out(json.dumps({"layers": rules, "steps": steps}, indent=2))
        return 0
    for layer in layers:
        if layer.permissions != Permissions():
            print_out(layer.name)
        for outcome in ("deny", "ask", "allow"):
            for rule in getattr(layer.permissions, outcome):
                print_out(f"  {outcome:5}  {rule_text(rule)}")
    for name, tools in steps.items():
        print_out(f"step {name}: {', '.join(f'{tool} ({what})' for tool, what in tools.items()) or 'no tools'}")
    return 0


def _tools_of(scene: _Scene, step: Step) -> dict[str, str]:
    layers = scene.layers(step.agent, step)
    out: dict[str, str] = {}
    for use in uses_of(step, scene.team.agents[step.agent]):
        spec = scene.tools.get(tool_of(use))
        if spec is None:
            out[tool_of(use)] = "not asked for what it is"
        else:
            out[spec.name] = spec.effect if may_ever(layers, spec, {}) else "never allowed"
    return out


def explain(path: Path, question: Question, policy: Path | None, *, as_json: bool) -> int:
    """Print which rule decides a call, and return the exit status: 0 allowed, 3 a person is asked, 1 denied.

    :raises TeamFileInvalid: the team file has mistakes
    :raises PolicyFileInvalid: the operator's has
    :raises CallUnreadable: there is no such tool, agent or step, or the call is none
    """
    scene = _scene(path, policy)
    agent, step = _place(scene.team, question)
    layers = scene.layers(agent, step)
    name, positional, named = _parsed(question.call)
    spec = scene.tools.get(name)
    if spec is None:
        raise CallUnreadable(f"there is no tool {name!r}" + (did_you_mean(name, scene.tools) or _known(scene)))
    arguments = _arguments(spec, positional, named)
    try:
        call = normalise(spec, arguments, scene.base, tainted=question.tainted)
    except CallNotNormal as error:
        return _tell(
            Decision("deny", "", "", str(error)), spec, None, _notes(scene, spec, agent, step), as_json=as_json
        )
    decision = _judge(scene, layers, call)
    notes = [*_notes(scene, spec, agent, step), *_orders(scene, call)]
    return _tell(decision, spec, call, notes, as_json=as_json)


def _scene(path: Path, policy: Path | None) -> _Scene:
    loaded = load_team(path)
    base = path.resolve().parent
    laid_down = load_policy(policy) if policy is not None else None
    operator = None if laid_down is None else resolved(Layer("operator", laid_down.permissions, laid_down.base))
    principles = (*(laid_down.principles if laid_down else ()), *loaded.team.principles)
    return _Scene(loaded.team, base, catalogue(loaded.team, base), operator, principles)


def _known(scene: _Scene) -> str:
    servers = [f"{name}.*" for name in scene.team.tools.mcp]
    more = f" (those of {', '.join(servers)} are only known once their servers run)" if servers else ""
    return f"; tools: {', '.join(scene.tools)}{more}"


def _place(team: Team, question: Question) -> tuple[str | None, Step | None]:
    """Return the agent and the step that a call is to be judged for."""
    if question.agent is not None and question.agent not in team.agents:
        raise CallUnreadable(f"there is no agent {question.agent!r}" + (did_you_mean(question.agent, team.agents)))
    if question.step is None:
        return question.agent, None
    steps = {step.step: step for step in team.plan}
    if question.step not in steps:
        raise CallUnreadable(f"there is no step {question.step!r}" + (did_you_mean(question.step, steps)))
    step = steps[question.step]
    return question.agent or step.agent, step


def _parsed(text: str) -> tuple[str, list[Json], dict[str, Json]]:
    """Return the tool of a call, its positional arguments and its named ones."""
    wanted = 'expected something like web.fetch("https://example.org/")'
    found = _NAME.fullmatch(text)
    tree = _tree(f"call{found[2]}") if found is not None else None
    if found is None or not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise CallUnreadable(f"{text[:200]!r} is no call: {wanted}")
    try:
        positional = [_json(ast.literal_eval(one)) for one in tree.args]
        named = {str(one.arg): _json(ast.literal_eval(one.value)) for one in tree.keywords}
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise CallUnreadable(f"{text[:200]!r} is no call with plain values: {wanted}") from None
    return found[1], positional, named


def _tree(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _json(value: object) -> Json:
    """Return a literal as JSON would carry it.

    :raises ValueError: JSON has no such value
    """
    carried: Json = json.loads(json.dumps(value, allow_nan=False))
    return carried


def _arguments(spec: ToolSpec, positional: Sequence[Json], named: Mapping[str, Json]) -> dict[str, Json]:
    properties = spec.parameters.get("properties")
    names = list(properties) if isinstance(properties, dict) else []
    if spec.primary in names:
        names = [spec.primary, *(name for name in names if name != spec.primary)]
    if len(positional) > len(names):
        raise CallUnreadable(f"{spec.name} has {len(names)} arguments ({', '.join(names)}), not {len(positional)}")
    given = dict(zip(names, positional, strict=False))
    twice = next((name for name in named if name in given), None)
    if twice is not None:
        raise CallUnreadable(f"{twice!r} is given twice")
    return {**given, **named}


def _judge(scene: _Scene, layers: Sequence[Layer], call: Call) -> Decision:
    broken = broken_by_call((one for one in scene.principles if not _looks_back(one)), call)
    if broken is not None:
        return Decision("deny", broken.principle, "principles", str(broken))
    return judge_call(layers, call)


def _orders(scene: _Scene, call: Call) -> list[str]:
    """Return the principles of order that hold for the call: what a job has done before is not known here."""
    found = (broken_by_call([one], call) for one in scene.principles if _looks_back(one))
    return [f"as the first call of a job it is denied: {broken}" for broken in found if broken is not None]


def _looks_back(principle: Principle) -> bool:
    spec = parse_principle(principle)
    return spec.before is not None or spec.after is not None


def _notes(scene: _Scene, spec: ToolSpec, agent: str | None, step: Step | None) -> list[str]:
    """Return what else stands between a call and its effect."""
    notes: list[str] = []
    own: Agent | None = scene.team.agents.get(agent) if agent is not None else None
    uses = uses_of(step, own) if step is not None and own is not None else own.tools if own is not None else None
    if uses is not None:
        granted = [use for use in uses if tool_of(use) == spec.name]
        if not granted:
            notes.append(f"not granted: {f'step {step.step}' if step else f'agent {agent}'} does not have this tool")
        elif all(isinstance(use, PinnedTool) and use.pin for use in granted):
            notes.append("granted with the arguments that the plan pins, and no others")
    if spec.effect == "irreversible":
        notes.append("irreversible: a person is asked even where the rules allow it")
    if spec.effect != "read" or spec.network:
        notes.append("with text from outside in the context, arguments that the plan did not pin are asked for")
    if scene.team.autonomy != "bounded":
        notes.append(f"autonomy is {scene.team.autonomy}: what has an effect is not simply done")
    return notes


def _tell(decision: Decision, spec: ToolSpec, call: Call | None, notes: list[str], *, as_json: bool) -> int:
    arguments = dict(call.arguments) if call else {}
    commands = [list(words) for several in (call.commands.values() if call else ()) for words in several]
    if as_json:
        told = {
            "outcome": decision.outcome,
            "rule": decision.rule,
            "layer": decision.layer,
            "reason": decision.reason,
            "tool": spec.name,
            "effect": spec.effect,
            "arguments": arguments,
            "commands": commands,
            "notes": notes,
        }
        print_out(json.dumps(told, indent=2))
        return EXIT_OF_OUTCOME[decision.outcome]
    print_out(f"{decision.outcome}: {decision.reason}")
    if decision.rule:
        print_out(f"  rule       {decision.rule}  ({decision.layer})")
    for name, value in arguments.items():
        print_out(f"  {name:9}  {json.dumps(value, ensure_ascii=False)}")
    for words in commands:
        print_out(f"  runs       {' '.join(words)!r}")
    print_out(f"  effect     {spec.effect}{', reaches the network' if spec.network else ''}")
    for note in notes:
        print_out(f"  note       {note}")
    return EXIT_OF_OUTCOME[decision.outcome]
