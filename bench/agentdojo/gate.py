"""Interlock's judgement of one call: the one of its gateway, on a job with one step.

What the gateway adds to it (the log, the kill orders, questions to a person) needs a broker, and refuses more.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

from interlock.agents.authority import Authority
from interlock.protocol.base import Json, Strict
from interlock.protocol.control import Policy
from interlock.protocol.messages import Grant, JobSubmitted, TaskAssigned
from interlock.protocol.permissions import Call, Permissions
from interlock.protocol.principles import DoneCall, Principle
from interlock.protocol.taint import Provenance, begun
from interlock.protocol.team import Agent, Step, Team
from interlock.protocol.tools import Pin, ToolGrant, ToolSpec

__all__ = ["Gate", "Rules", "grants_of", "rules"]


class Rules(Strict):
    """What ``rules.yaml`` says."""

    permissions: Permissions
    principles: tuple[Principle, ...] = ()


@cache
def rules() -> Rules:
    """Return the rules, which are the same for every suite."""
    return Rules.model_validate(YAML(typ="safe").load(Path(__file__).with_name("rules.yaml")))


def grants_of(prompt: str, calls: Sequence[tuple[str, Mapping[str, Json]]]) -> tuple[ToolGrant, ...]:
    """Return what the honest plan of a user's task grants: its tools, with what the user's own sentence fixes."""
    said = Provenance(words=prompt)
    grants = [
        ToolGrant(
            tool=tool,
            pins={
                name: Pin(value=arguments[name])
                for name, source in said.sources_of(arguments, {}).items()
                if source == "instructed" and arguments[name] not in (None, "", [])
            },
        )
        for tool, arguments in calls
    ]
    return tuple(grant for index, grant in enumerate(grants) if grant not in grants[:index])


class Gate:
    """Judges the calls of one attempt, and remembers what it has read. There is nobody to ask: a question is a no."""

    def __init__(self, prompt: str, grants: Sequence[ToolGrant], specs: Sequence[ToolSpec]) -> None:
        """``prompt`` is the job's goal, ``grants`` what its one step may use."""
        self._authority = Authority(_job(prompt, specs), _assignment(prompt, grants), "agent")
        self._context = begun(prompt, prompt, ())
        self._used: Counter[int] = Counter()
        self._done: list[DoneCall] = []

    def judge(self, tool: str, arguments: Mapping[str, Json]) -> Call | str:
        """Return the call that may be made, or why it may not."""
        judged = self._authority.judge(_NOTHING_MORE, tool, arguments, self._context, used=self._used, done=self._done)
        if judged.outcome == "go" and judged.call is not None:
            self._used[judged.grant] += 1
            return judged.call
        sources = judged.call.sources if judged.call else {}
        shown = ", ".join(f"{name}: {sources[name]}" for name in arguments if name in sources)
        return f"{judged.outcome}: {judged.reason} ({shown})"

    def returned(self, call: Call, outcome: Json) -> None:
        """Take in what a call returned, or the text that it failed with."""
        self._context = self._context.after(call, outcome)
        self._done.append(DoneCall(call.spec.name, call.spec.effect, call.arguments, call.spec))


_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_NOTHING_MORE = Policy(id="policy", at=_NOW)
"""What the operator lays down besides the rules of the team."""


def _job(prompt: str, specs: Sequence[ToolSpec]) -> JobSubmitted:
    team = Team(
        interlock=1,
        team="agentdojo",
        agents={"agent": Agent(kind="worker")},
        plan=(Step(step="task", agent="agent", do="{{ goal }}"),),
        permissions=rules().permissions,
        principles=rules().principles,
    )
    return JobSubmitted(id="job", ns="bench", job="job", at=_NOW, team=team, goal=prompt, tools=tuple(specs))


def _assignment(prompt: str, grants: Sequence[ToolGrant]) -> TaskAssigned:
    return TaskAssigned(
        id="task",
        ns="bench",
        job="job",
        task="task",
        attempt=1,
        at=_NOW,
        step="task",
        role="agent@agentdojo",
        verifier="checker@agentdojo",
        goal=prompt,
        instruction=prompt,
        grant=Grant(tools=tuple(grants), seconds=600),
    )
