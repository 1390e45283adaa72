"""The form of a manager's answer: a JSON Schema made from its team, flat enough that engines can bind a model to it.

Every key is required and there is no recursion and no alternative between objects, so that a grammar of it is small.
What a team file says with nested keys stands here in plain texts, which ``planning_reading`` takes apart again.
"""

from collections.abc import Iterable, Sequence

from interlock.protocol.base import Json
from interlock.protocol.team import TYPE_NAMES, Agent, Input, Step, Team, tool_of

__all__ = ["CRITERIA", "MAKES", "MAX_STEPS", "doers_of", "inputs_of", "plan_schema", "tools_of", "verifiers_of"]

MAX_STEPS = 20
"""The most steps of a plan that a manager makes."""

MAKES = ("plan", "answer", "question", "refusal")
"""What a manager's answer can be."""

CRITERIA = {
    "judge": "a sentence that must be true of the result",
    "words": "at most so many words, such as 40, or between two numbers, such as 10-40",
    "characters": "as words, of characters",
    "contains": "a text that must stand in it",
    "lacks": "a text that must not stand in it",
    "regex": "a pattern that must be found in it",
    "one_of": "all values that it may have, with | between them",
    "grounded": "the text that it must keep to, such as {{ item.text }}",
    "no_repetition": "leave it empty",
}
"""The kinds of criteria that a manager can demand, and what the value of each is."""

_TEXT: Json = {"type": "string"}
_MOST = 8
"""The most entries of each list within a step."""
_STEP_NAME = "^[a-z][a-z0-9_]{0,30}$"


def doers_of(team: Team) -> dict[str, Agent]:
    """Return the agents that steps can be given to: workers, and teams within the team."""
    return {name: agent for name, agent in team.agents.items() if agent.kind in {"worker", "team"}}


def verifiers_of(team: Team) -> tuple[str, ...]:
    """Return the names of the team's verifiers."""
    return tuple(name for name, agent in team.agents.items() if agent.kind == "verifier")


def tools_of(agents: Iterable[Agent]) -> tuple[str, ...]:
    """Return the names of the tools that ``agents`` have, each once."""
    uses = (use for agent in agents for use in agent.tools)
    return tuple(dict.fromkeys(tool_of(use) for use in uses))


def inputs_of(agent: Agent) -> dict[str, Input]:
    """Return the inputs of an agent that is a team; only such a one has any."""
    return agent.team.inputs if isinstance(agent.team, Team) else {}


def plan_schema(team: Team, before: Sequence[Step] = ()) -> dict[str, Json]:
    """Return the JSON Schema of what a manager answers; ``before`` are the steps of the plan that it is to change."""
    fields: dict[str, Json] = {"makes": _choice(MAKES), "text": _TEXT}
    if before:
        fields["keep"] = _list(_choice([step.step for step in before]), len(before))
    fields["steps"] = _list(_step(team, before), MAX_STEPS)
    return _object(fields)


def _step(team: Team, before: Sequence[Step]) -> Json:
    agents, verifiers = doers_of(team), verifiers_of(team)
    fields: dict[str, Json] = {"step": {"type": "string", "pattern": _STEP_NAME}}
    if before:
        fields["replaces"] = _choice(["", *(step.step for step in before)])
    fields |= {
        "agent": _choice(list(agents)),
        "do": _TEXT,
        "needs": _list(_TEXT),
        "for_each": _TEXT,
        "output": _list(_object({"field": _TEXT, "type": _choice(TYPE_NAMES)})),
        "criteria": _list(_object({"kind": _choice(list(CRITERIA)), "field": _TEXT, "value": _TEXT})),
    }
    if len(verifiers) > 1:
        fields["verify_by"] = _choice(verifiers)
    if tools := tools_of(agents.values()):
        pin = _list(_object({"argument": _TEXT, "value": _TEXT}))
        fields["tools"] = _list(_object({"tool": _choice(tools), "pin": pin}))
    if any(inputs_of(agent) for agent in agents.values()):
        fields["inputs"] = _list(_object({"name": _TEXT, "value": _TEXT}))
    return _object(fields)


def _object(fields: dict[str, Json]) -> dict[str, Json]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _choice(names: Sequence[str]) -> Json:
    return {"type": "string", "enum": list(names)}


def _list(items: Json, most: int = _MOST) -> Json:
    return {"type": "array", "items": items, "maxItems": most}
