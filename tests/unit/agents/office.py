"""A team that plans by itself, its tools, and proposals for it, for tests of planning."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from interlock.agents.plan_problems import plan_problems
from interlock.agents.planning_reading import read_proposal
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.control import NO_POLICY, Policy
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.team import Step, Team
from interlock.protocol.tools import ToolSpec

__all__ = ["CATALOGUE", "job", "problems", "proposal", "step", "steps_of", "team"]


def _parameters(**properties: Json) -> dict[str, Json]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


CATALOGUE = (
    ToolSpec(name="box.look", effect="read", outside=False, description="Look at one thing.", parameters=_parameters()),
    ToolSpec(
        name="box.send",
        effect="once",
        description="Send a text to somebody.",
        parameters=_parameters(to={"type": "string"}, times={"type": "integer"}),
        destinations=("to",),
        primary="to",
    ),
    ToolSpec(name="box.burn", effect="irreversible", parameters=_parameters(what={"type": "string"})),
)


def team(**changes: Any) -> Team:
    """Return a team with two workers, a verifier, inputs and tools, and no plan."""
    return Team.model_validate(
        {
            "interlock": 1,
            "team": "office",
            "agents": {
                "boss": {"kind": "manager", "prompt": "You run a small office."},
                "reader": {"kind": "worker", "description": "Reads and sums up documents", "tools": ["box.look"]},
                "clerk": {
                    "kind": "worker",
                    "description": "Sends letters",
                    "tools": [{"tool": "box.send", "pin": {"to": "ann"}}, "box.burn"],
                },
                "checker": {"kind": "verifier", "description": "Checks everything"},
            },
            "inputs": {
                "documents": {"type": "files", "required": False, "description": "What is to be read"},
                "tone": {"type": "string", "default": "plain"},
            },
            "permissions": {"allow": ["box.*"], "deny": ["box.send(eve)"]},
            "principles": ["never irreversible effects"],
        }
        | changes
    )


def job(goal: str = "Sum it up", *, inputs: Mapping[str, Any] | None = None, **changes: Any) -> JobSubmitted:
    """Return a job of such a team; ``team`` among the changes is another one."""
    fields: dict[str, Any] = {"team": team(), "tools": CATALOGUE, "base": "/srv/team", **changes}
    given: dict[str, Any] = {"documents": [{"path": "a", "name": "a", "text": "t"}], "tone": "plain"}
    given = given if inputs is None else dict(inputs)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return JobSubmitted(id="m1", ns="test", job="j1", at=at, goal=goal, inputs=given, **fields)


def step(name: str = "sum_up", **changes: Any) -> dict[str, Any]:
    """Return a good step in the form that a manager's model answers in."""
    return {
        "step": name,
        "agent": "reader",
        "do": "Sum up {{ item.text }}",
        "needs": [],
        "for_each": "{{ inputs.documents }}",
        "output": [{"field": "summary", "type": "string"}],
        "criteria": [{"kind": "words", "field": "summary", "value": "40"}],
        "tools": [],
    } | changes


def proposal(*steps: Mapping[str, Any], makes: str = "plan", text: str = "", **more: Any) -> str:
    """Return what a model writes that proposes ``steps``."""
    return canonical_json({"makes": makes, "text": text, "steps": [dict(one) for one in steps], **more})


def steps_of(*steps: Mapping[str, Any], of: JobSubmitted | None = None, **more: Any) -> tuple[Step, ...]:
    """Return the steps that such a text is read as."""
    submitted = of or job()
    outcome = read_proposal(proposal(*steps), submitted.team, submitted.tools, **more)
    assert not outcome.unreadable, outcome.unreadable
    return outcome.steps


def problems(
    *steps: Mapping[str, Any], of: JobSubmitted | None = None, policy: Policy = NO_POLICY, **more: Any
) -> list[str]:
    """Return what is wrong with a plan of ``steps``."""
    submitted = of or job()
    return list(plan_problems(submitted, policy, steps_of(*steps, of=submitted), **more))
