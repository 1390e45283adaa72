"""The HTTP API for tests: the real app on a real socket, over a real broker; and jobs that are written by hand."""

import socket
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.messages import (
    Grant,
    JobClosed,
    JobSubmitted,
    PlanAccepted,
    PlanExpanded,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
)
from interlock.protocol.team import Team
from interlock.runtime.api.app import make_app
from interlock.runtime.api.context import ApiContext, open_context
from interlock.runtime.api.keyfile import KeyRecord, KeyScope, digest_of
from interlock.runtime.api.keys import Keys
from interlock.runtime.api.server import serving
from interlock.runtime.api.settings import ApiSettings
from interlock.runtime.bus import Bus
from interlock.runtime.presence import Presence
from interlock.runtime.teamfile import parse_team

__all__ = ["Api", "Hand", "key_record", "open_api", "team"]

TEAM = """
interlock: 1
team: {name}
description: Say things about numbers
agents:
  reader: {{kind: worker}}
  checker: {{kind: verifier}}
inputs:
  numbers: {{type: array}}
  papers: {{type: files, required: false}}
plan:
  - step: say
    for_each: "{{{{ inputs.numbers }}}}"
    agent: reader
    do: "Say {{{{ item }}}}"
    output: {{said: string}}
"""


def team(name: str = "digest") -> Team:
    """Return a small team."""
    return parse_team(TEAM.format(name=name), Path("/nowhere/team.yaml")).team


def key_record(key: str, *scopes: KeyScope, teams: Sequence[str] | None = None) -> KeyRecord:
    """Return what a file of keys says of a key; it is called like the key itself."""
    return KeyRecord(name=key, sha256=digest_of(key), scopes=scopes, teams=None if teams is None else tuple(teams))


class Api(httpx2.AsyncClient):
    """A client of the API, which also gives what the API stands on."""

    def __init__(self, url: str, context: ApiContext) -> None:
        super().__init__(base_url=url, timeout=30)
        self.context = context
        self.url = url


@asynccontextmanager
async def open_api(
    bus: Bus,
    *,
    keys: Iterable[KeyRecord] | Keys | None = None,
    settings: ApiSettings | None = None,
    teams: Sequence[str] = ("digest",),
) -> AsyncIterator[Api]:
    """Serve the API while the block runs; without ``keys`` it is open."""
    for name in teams:
        await Presence(bus).publish_team(team(name))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    known = keys if keys is None or isinstance(keys, Keys) else Keys(keys)
    async with (
        open_context(bus, Tracing(), known, settings or ApiSettings()) as context,
        serving(make_app(context), listener),
        Api(url, context) as api,
    ):
        yield api


class Hand:
    """Writes the log of one job as its agents would."""

    def __init__(self, bus: Bus, job: str, of: str = "digest") -> None:
        self._bus = bus
        self._job = job
        self._team = team(of)
        self.head = 0

    async def begin(self, items: int = 1) -> None:
        """Submit a job with so many items, and accept its plan."""
        numbers: list[Json] = [*range(items)]
        submitted = JobSubmitted(**self._about(), team=self._team, goal="count", inputs={"numbers": numbers})
        self.head = await self._bus.append(submitted)
        steps = self._team.plan
        self.head = await self._bus.append(
            PlanAccepted(**self._about(answers=self.head), version=1, steps=steps, result_steps=("say",))
        )
        self.head = await self._bus.append(PlanExpanded(**self._about(answers=self.head), step="say", items=items))

    async def assign(self, index: int) -> int:
        """Assign a task and return the sequence of its assignment."""
        return await self._bus.append(
            TaskAssigned(
                **self._about(task=f"say:{index}", attempt=1),
                role=f"reader@{self._team.team}",
                verifier=f"checker@{self._team.team}",
                step="say",
                index=index,
                instruction=f"Say {index}",
                grant=Grant(seconds=60),
            )
        )

    async def drop(self, index: int, assigned: int) -> int:
        """Close a task that was assigned."""
        about = self._about(task=f"say:{index}", attempt=1, answers=assigned)
        return await self._bus.append(TaskClosed(**about, outcome="failed", reason="tired"))

    async def ask(self, index: int, assigned: int, *options: str) -> str:
        """Ask a question about a task and return the question's id."""
        about = self._about(task=f"say:{index}", attempt=1, answers=assigned)
        question = QuestionAsked(
            **about,
            by=f"reader@{self._team.team}",
            question=f"q-{index}",
            text="Shall I?",
            options=options,
            expires=datetime.now(UTC) + timedelta(hours=1),
        )
        await self._bus.append(question)
        return question.question

    async def close(self) -> int:
        """Close the job."""
        self.head = await self._bus.append(JobClosed(**self._about(answers=self.head), status="failed", reason="tired"))
        return self.head

    def _about(self, **more: Any) -> dict[str, Any]:
        return {"id": uuid.uuid4().hex, "ns": self._bus.ns, "job": self._job, "at": datetime.now(UTC), **more}
