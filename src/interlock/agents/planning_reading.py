"""What a manager's model wrote, read: a plan made of steps, an answer, a question, a refusal, or why it is none.

Besides its own form a plan may be written as in a team file, since a model that nothing binds often does that.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from interlock.agents.answers import NotJson, embedded_json, parse_json
from interlock.agents.planning_form import CRITERIA, MAKES, inputs_of
from interlock.agents.proposer import ProposalOutcome
from interlock.protocol.base import Json
from interlock.protocol.criteria import map_templates
from interlock.protocol.team import Agent, PinnedTool, Step, Team, ToolUse, Verify
from interlock.protocol.tools import ToolSpec

__all__ = ["read_proposal"]

_SHOWN = 200
_BOUNDS = re.compile(r"(\d{1,9})?\s*(?:-|\.\.|to)\s*(\d{1,9})|(\d{1,9})")


class _Draft(BaseModel):
    """An answer before its steps are read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    makes: Literal["plan", "answer", "question", "refusal"]
    text: str = ""
    keep: list[str] = []
    steps: list[dict[str, Any]] = []


class _Unreadable(ValueError):
    """Why an answer is none; the message is for the model that wrote it."""


def read_proposal(
    text: str,
    team: Team,
    tools: Sequence[ToolSpec] = (),
    before: Sequence[Step] = (),
    kept: Collection[str] = (),
) -> ProposalOutcome:
    """Return what ``text`` proposes; where it cannot be read, ``unreadable`` says why, in words for a model.

    :param tools: what is known of the team's tools
    :param before: the steps of the plan that is to be changed
    :param kept: those of them that stay, whatever the text says
    """
    try:
        draft = _draft(text)
        steps = _Steps(team, tools, before).read(draft.steps) if draft.makes == "plan" else []
    except _Unreadable as problem:
        return ProposalOutcome(unreadable=str(problem))
    if draft.makes != "plan":
        return _said(draft)
    stay = {*kept, *draft.keep}
    named = {step.step for step in steps}
    steps = [*(step for step in before if step.step in stay and step.step not in named), *steps]
    if not steps:
        return ProposalOutcome(unreadable='"makes" is plan, and there are no steps: give at least one')
    return ProposalOutcome("plan", tuple(steps), draft.text.strip())


def _said(draft: _Draft) -> ProposalOutcome:
    if draft.text.strip():
        return ProposalOutcome(draft.makes, text=draft.text.strip())
    return ProposalOutcome(unreadable=f'"makes" is {draft.makes}, and "text" is empty: write the {draft.makes} there')


def _draft(text: str) -> _Draft:
    try:
        return _whole(parse_json(text))
    except NotJson as problem:
        # Other words around it are forgiven where the object is whole.
        for value in embedded_json(text):
            if isinstance(value, dict) and "makes" in value:
                return _whole(value)
        raise _Unreadable(f"this is no JSON object: {problem}") from None


def _whole(value: Json) -> _Draft:
    if not isinstance(value, dict):
        raise _Unreadable("expected one JSON object")
    if value.get("makes") not in MAKES:
        raise _Unreadable(f'"makes" is one of {", ".join(MAKES)}')
    try:
        return _Draft.model_validate(value)
    except ValidationError as error:
        raise _Unreadable(_told(error)) from None


def _told(error: ValidationError) -> str:
    """Return what is wrong as one line that does not repeat what may be long."""
    found = (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors(include_url=False))
    return "; ".join(list(found)[:4])[: 3 * _SHOWN]


class _Steps:
    """Reads the steps of one answer."""

    def __init__(self, team: Team, tools: Sequence[ToolSpec], before: Sequence[Step]) -> None:
        self._team = team
        self._tools = {spec.name: spec for spec in tools}
        self._before = {step.step: step for step in before}

    def read(self, drafts: Sequence[Mapping[str, Any]]) -> list[Step]:
        """Return the steps that the drafts describe.

        :raises _Unreadable: one of them is none
        """
        read = [self._step(draft, f"steps.{number}") for number, draft in enumerate(drafts)]
        renamed = {old: step.step for step, old in read if old}
        return [self._taking_over(step, old, renamed) for step, old in read]

    def _step(self, draft: Mapping[str, Any], at: str) -> tuple[Step, str]:
        """Return a step, and the name of the one that it stands in the place of; empty where there is none."""
        name = draft.get("step")
        at = f"step {name}" if isinstance(name, str) and name else at
        fields = {key: value for key, value in draft.items() if value is not None}
        replaces = fields.pop("replaces", "")
        if not isinstance(replaces, str) or (replaces and replaces not in self._before):
            raise _Unreadable(f'{at}: "replaces" names a step of the plan before; steps: {", ".join(self._before)}')
        for key in ("for_each", "output"):
            if fields.get(key) in ("", [], {}):
                del fields[key]
        if isinstance(fields.get("output"), list):
            fields["output"] = _output(fields["output"], at)
        if "criteria" in fields or "verify_by" in fields:
            criteria = [_criterion(one, at) for one in _listed(fields.pop("criteria", []), f"{at}: criteria")]
            fields["verify"] = {"by": fields.pop("verify_by", None) or None, "criteria": criteria}
        agent = self._team.agents.get(str(fields.get("agent")))
        if "tools" in fields:
            fields["tools"] = [self._tool(one, agent, at) for one in _listed(fields["tools"], f"{at}: tools")]
        if isinstance(fields.get("inputs"), list):
            fields["inputs"] = _inputs(fields["inputs"], agent, at)
        try:
            return Step.model_validate(fields), replaces
        except ValidationError as error:
            raise _Unreadable(f"{at}: {_told(error)}") from None

    def _tool(self, given: Any, agent: Agent | None, at: str) -> ToolUse | Mapping[str, Any]:
        """Return a tool's use: what the plan pins beside what the team file pins for the agent."""
        if isinstance(given, str):
            given = {"tool": given}
        if not isinstance(given, dict):
            raise _Unreadable(f'{at}: a tool is written as {{"tool": NAME, "pin": []}}')
        name = given.get("tool")
        pins = self._pins(str(name), given.get("pin") or [], at)
        uses = agent.tools if agent else ()
        own = [use for use in uses if isinstance(use, PinnedTool) and use.tool == name]
        if own and name not in uses:  # what the team file fixes stays fixed
            return own[0].model_copy(update={"pin": {**own[0].pin, **pins}})
        rest = {key: value for key, value in given.items() if key not in {"tool", "pin"}}
        return {"tool": name, "pin": pins, **rest} if pins or rest else str(name)

    def _pins(self, tool: str, given: Any, at: str) -> dict[str, Json]:
        if isinstance(given, dict):
            return given
        pins: dict[str, Json] = {}
        for one in _listed(given, f"{at}: pin"):
            if not isinstance(one, dict) or not isinstance(name := one.get("argument"), str) or "value" not in one:
                raise _Unreadable(f'{at}: a pin is written as {{"argument": NAME, "value": TEXT}}')
            pins[name] = self._typed(tool, name, one["value"])
        return pins

    def _typed(self, tool: str, argument: str, value: Json) -> Json:
        """Return a pinned value as its argument's type wants it: every value of the form is a text."""
        spec = self._tools.get(tool)
        properties = spec.parameters.get("properties") if spec else None
        wanted = properties.get(argument) if isinstance(properties, dict) else None
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        return value if kind in {None, "string"} else _as_json(value)

    def _taking_over(self, step: Step, old: str, renamed: Mapping[str, str]) -> Step:
        """Return a step that demands all that the one in whose place it stands did."""
        if not old:
            return step
        before = self._before[old]
        inherited = tuple(
            map_templates(criterion, lambda text: _renamed(text, renamed)) for criterion in before.verify.criteria
        )
        own = tuple(one for one in step.verify.criteria if one not in inherited)
        output = None if before.output is None else {**(step.output or {}), **before.output}
        update: dict[str, Any] = {
            "output": step.output if output is None else output,
            "verify": Verify(by=before.verify.by or step.verify.by, criteria=(*inherited, *own)),
        }
        if step.for_each is None and isinstance(before.for_each, str | tuple):
            update["for_each"] = (
                before.for_each if isinstance(before.for_each, tuple) else _renamed(before.for_each, renamed)
            )
        return step.model_copy(update=update)


def _renamed(template: str, names: Mapping[str, str]) -> str:
    """Return a template that names the steps of a new plan where it named those that they stand in the place of."""

    def new(match: re.Match[str]) -> str:
        name = match["plain"] or match["quoted"]
        return f"steps['{names[name]}']" if name in names else match[0]

    return re.sub(r"\bsteps(?:\.(?P<plain>[a-z][a-z0-9_]*)|\[['\"](?P<quoted>[a-z][a-z0-9_-]*)['\"]\])", new, template)


def _listed(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Unreadable(f"{what}: expected a list")
    return value


def _output(fields: list[Any], at: str) -> dict[str, Json]:
    output: dict[str, Json] = {}
    for one in fields:
        if not isinstance(one, dict) or not isinstance(name := one.get("field"), str) or "type" not in one:
            raise _Unreadable(f'{at}: output is a list of {{"field": NAME, "type": TYPE}}')
        output[name] = one["type"]
    return output


def _inputs(given: list[Any], agent: Agent | None, at: str) -> dict[str, Json]:
    """Return what a team within the team is given, each value as its input's type wants it."""
    declared, inputs = inputs_of(agent) if agent else {}, dict[str, Json]()
    for one in given:
        if not isinstance(one, dict) or not isinstance(name := one.get("name"), str) or "value" not in one:
            raise _Unreadable(f'{at}: an input is written as {{"name": NAME, "value": TEXT}}')
        is_text = name not in declared or declared[name].type == "string"
        inputs[name] = one["value"] if is_text else _as_json(one["value"])
    return inputs


def _as_json(value: Json) -> Json:
    """Return the value that a text spells; a template, and what is none, stay as they are."""
    if not isinstance(value, str) or "{{" in value:
        return value
    try:
        return parse_json(value)
    except NotJson:
        return value


def _criterion(given: Any, at: str) -> dict[str, Json]:
    """Return a criterion as team files write it."""
    if not isinstance(given, dict):
        raise _Unreadable(f'{at}: a criterion is written as {{"kind": KIND, "field": NAME, "value": TEXT}}')
    if "kind" not in given:
        return given
    kind, value = given["kind"], given.get("value", "")
    if not isinstance(kind, str) or kind not in CRITERIA:
        raise _Unreadable(f"{at}: there is no criterion {kind!r}; kinds: {', '.join(CRITERIA)}")
    if not isinstance(value, str):
        value = str(value)
    if not value.strip() and kind != "no_repetition":
        raise _Unreadable(f"{at}: the value of criterion {kind} is empty: {CRITERIA[kind]}")
    if kind == "judge":
        return {"judge": value}
    field: dict[str, Json] = {"field": given["field"]} if given.get("field") else {}
    return {**_check(kind, value.strip(), at), **field}


def _check(kind: str, value: str, at: str) -> dict[str, Json]:
    match kind:
        case "words" | "characters":
            return {"check": kind, **_bounds(kind, value, at)}
        case "contains":
            return {"check": "contains", "all": [value]}
        case "lacks":
            return {"check": "contains", "none": [value]}
        case "regex":
            return {"check": "regex", "pattern": value}
        case "one_of":
            return {"check": "one_of", "values": [one.strip() for one in value.split("|") if one.strip()]}
        case "grounded":
            return {"check": "grounded", "source": value}
        case _:
            return {"check": kind}


def _bounds(kind: str, value: str, at: str) -> dict[str, Json]:
    found = _BOUNDS.search(value)
    if found is None:
        raise _Unreadable(f"{at}: {value[:_SHOWN]!r} is no number of {kind}: {CRITERIA[kind]}")
    least, most, only = found.groups()
    return {"max": int(only)} if only else {"min": int(least or 0), "max": int(most)}
