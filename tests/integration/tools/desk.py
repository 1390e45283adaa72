"""One attempt with a gateway of its own, over a real broker and real tools: no worker process, no model."""

import json
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from interlock.agents.toolbox import Observation
from interlock.agents.tools.catalogue import catalogue
from interlock.backends.chat import ToolCall
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json, role_of
from interlock.protocol.control import Policy
from interlock.protocol.messages import (
    EffectDone,
    EffectInDoubt,
    EffectIntended,
    Grant,
    JobSubmitted,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
)
from interlock.protocol.permissions import Permissions
from interlock.protocol.state import Entry
from interlock.protocol.subjects import job_subjects
from interlock.protocol.taint import begun
from interlock.protocol.team import Team
from interlock.protocol.tools import ToolGrant
from interlock.runtime.approvals import Answered, Pending
from interlock.runtime.bus import Bus
from interlock.runtime.chain import Chain, take_over
from interlock.runtime.client import submit
from interlock.runtime.config import Toolkit, ToolSetup
from interlock.runtime.gateway import Acted, Gateway, Outside
from interlock.runtime.workshop import Workshop, open_workshop

__all__ = ["BOX_TOOLS", "Attempt", "Desk", "box_team", "envelope", "open_desk", "policy_of", "said"]

BOX_TOOLS = Path(__file__).parent / "box_tools.py"
"""The tools as a team's file."""
_ALL = ("look", "put", "write", "send", "burn", "ship", "fail", "hang", "follow")


def box_team(**more: Any) -> Team:
    """Return a team whose worker ``w`` may call every tool of the box, unless ``more`` says otherwise."""
    tools = [f"box.{name}" for name in _ALL]
    return Team.model_validate(
        {
            "interlock": 1,
            "team": "t",
            "agents": {"w": {"kind": "worker", "tools": tools}, "v": {"kind": "verifier"}},
            "tools": {"modules": ["box_tools.py"]},
            "plan": [{"step": "s", "agent": "w", "do": "go"}],
            "permissions": {"allow": ["box.*"]},
            **more,
        }
    )


def policy_of(**permissions: Any) -> Policy:
    """Return an operator's policy with these permission rules."""
    return Policy(id=uuid.uuid4().hex, at=datetime.now(UTC), permissions=Permissions.model_validate(permissions))


@dataclass
class Attempt:
    """A gateway and the chain that it holds."""

    gateway: Gateway
    chain: Chain
    _calls: int = field(default=0)

    async def call(self, tool: str, /, **arguments: Json) -> Observation:
        """Have the model ask for a call."""
        self._calls += 1
        return await self.gateway.call(ToolCall(f"c{self._calls}", tool, json.dumps(arguments, sort_keys=True)))


@dataclass
class Desk:
    """A job with one task, and what its attempts act with."""

    bus: Bus
    base: Path
    workshop: Workshop
    job: str
    grant: Grant

    async def assign(self, number: int = 1, *, answers: int = 0, resumes: int = 0) -> tuple[TaskAssigned, int]:
        """Append an assignment of the task and return it with its sequence."""
        assignment = TaskAssigned(
            **envelope(self.bus.ns, self.job, number, answers),
            step="s",
            role=role_of("w", "t"),
            verifier=role_of("v", "t"),
            goal="go",
            instruction="go",
            grant=self.grant,
            resumes=resumes,
        )
        return assignment, await self.bus.append(assignment)

    async def attempt(
        self,
        assignment: TaskAssigned,
        seq: int,
        answered: Answered | None = None,
        acted: Json = None,
        **outside: Any,
    ) -> Attempt:
        """Take an assignment up, as a worker process does that got its message; ``outside`` replaces what it has."""
        chain = await take_over(self.bus, assignment, seq)
        assert chain is not None
        return self.with_chain(chain, await self.workshop.job(self.job), answered, acted, **outside)

    def with_chain(
        self, chain: Chain, submitted: JobSubmitted, answered: Answered | None = None, acted: Json = None, **more: Any
    ) -> Attempt:
        """Return the attempt that holds ``chain``."""
        outside: Outside = replace(self.workshop.outside(submitted, chain.assignment, "w"), **more)
        before = Acted(provenance=begun("go", "go", ())) if acted is None else Acted.model_validate(acted)
        authority = self.workshop.authority(submitted, chain.assignment, "w")
        return Attempt(Gateway(authority, chain, before, outside, Tracing(), answered), chain)

    async def begin(self, **outside: Any) -> Attempt:
        """Assign the task for the first time and take it up."""
        return await self.attempt(*(await self.assign()), **outside)

    async def ask(self, attempt: Attempt, pending: Pending) -> QuestionAsked:
        """Append the question that an attempt waits with, which ends its hold."""
        question = QuestionAsked(
            **attempt.chain.envelope(),
            by=attempt.chain.by,
            question="q1",
            text=pending.text,
            about=pending.about,
            approval=pending.approval,
            key=pending.key,
            expires=datetime.now(UTC) + timedelta(hours=1),
            transcript=attempt.gateway.hidden({"acting": attempt.gateway.acted.model_dump(mode="json")}),
        )
        await attempt.chain.extend(question)
        return question

    async def resume(self, attempt: Attempt, pending: Pending, says: str, **more: Any) -> Attempt:
        """Ask, answer and go on with a gateway that knows only what stands in the log."""
        asked = await self.ask(attempt, pending)
        answer = QuestionAnswered(
            **envelope(self.bus.ns, self.job, asked.attempt, attempt.chain.head), question="q1", answer=says, **more
        )
        seq = await self.bus.append(answer)
        read = (await self.bus.get(attempt.chain.head)).message
        assert isinstance(read, QuestionAsked)
        assert isinstance(read.transcript, dict)
        assignment, at = await self.assign(asked.attempt, answers=seq, resumes=seq)
        return await self.attempt(assignment, at, Answered(read, answer), read.transcript["acting"])

    async def log(self) -> list[Entry]:
        """Return the job's entries."""
        return [one.entry for one in await self.bus.entries(job_subjects(self.bus.ns, self.job))]

    async def effects(self) -> list[str]:
        """Return the kinds of the effects' entries, in order; an outcome that says that nothing was done is ``not``."""
        found: list[str] = []
        for entry in await self.log():
            match entry.message:
                case EffectIntended():
                    found.append("intended")
                case EffectDone():
                    found.append("not" if entry.message.failed else "done")
                case EffectInDoubt():
                    found.append("in_doubt")
                case _:
                    pass
        return found

    @property
    def outside(self) -> list[tuple[str, str]]:
        """What was really done: tool and argument, oldest first."""
        path = self.base / "outside.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(one["tool"], one["what"]) for one in map(json.loads, lines)]


def said(observation: Observation) -> tuple[bool, str]:
    """Return whether a call did what it should, and what the model is told."""
    return not observation.failed, observation.text


def envelope(ns: str, job: str, attempt: int, answers: int) -> dict[str, Any]:
    """Return the envelope of a message about the task ``s``."""
    return {
        "id": uuid.uuid4().hex,
        "ns": ns,
        "job": job,
        "task": "s",
        "attempt": attempt,
        "answers": answers,
        "at": datetime.now(UTC),
    }


@asynccontextmanager
async def open_desk(
    bus: Bus, base: Path, team: Team | None = None, grant: Mapping[str, Any] | None = None
) -> AsyncIterator[Desk]:
    """Submit a job of ``team`` and open its tools while the block runs."""
    shutil.copy(BOX_TOOLS, base)
    team = team or box_team()
    specs = tuple(catalogue(team, base).values())
    await submit(bus, Tracing(), team, "go", {}, "j1", toolkit=Toolkit(specs, str(base)))
    setup = ToolSetup(sources=team.tools, secrets=team.secrets, catalogue=specs, base=str(base))
    every = tuple(ToolGrant(tool=spec.name) for spec in specs)
    async with open_workshop(setup, bus) as workshop:
        yield Desk(bus, base, workshop, "j1", Grant.model_validate({"tools": every, "seconds": 60, **(grant or {})}))
