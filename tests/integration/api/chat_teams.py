"""Teams to talk with, kept up with a scripted model and served over HTTP, for the tests of the OpenAI API."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli import running
from tests.teams import write_team

from interlock.observability.tracing import Tracing
from interlock.runtime.api.app import make_app
from interlock.runtime.api.context import open_context
from interlock.runtime.api.keyfile import KeyRecord, digest_of
from interlock.runtime.api.keys import Keys
from interlock.runtime.api.server import serving
from interlock.runtime.bus import Bus
from interlock.runtime.place import Place, open_log
from interlock.testing import Answer, Call, CallTool, Hang, Reply, ScriptedServer

__all__ = ["KEYS", "Background", "Served", "answer", "served"]

KEYS = {
    "all": KeyRecord(name="all", sha256=digest_of("all"), scopes=("submit", "read", "answer", "kill")),
    "form": KeyRecord(name="form", sha256=digest_of("form"), scopes=("submit", "read", "answer"), teams=("form",)),
    "reads": KeyRecord(name="reads", sha256=digest_of("reads"), scopes=("read",)),
}
"""Keys by what one has to send."""


@dataclass
class Served:
    """What is up."""

    url: str
    """Base URL of the OpenAI API."""
    model: ScriptedServer
    bus: Bus
    folder: Path


def _desk() -> dict[str, Any]:
    """Return a team that does as it is told, and asks before it writes."""
    return {
        "interlock": 1,
        "team": "desk",
        "description": "Does as it is told.",
        "agents": {"writer": {"kind": "worker", "tools": ["files.write"]}, "checker": {"kind": "verifier"}},
        "tools": {"files": {"write": ["out"]}},
        "permissions": {"ask": ["files.write"]},
        "plan": [
            {
                "step": "note",
                "agent": "writer",
                "do": "{{ goal }}",
                "verify": {"by": "checker", "criteria": [{"check": "words", "max": 60}]},
                "attempts": 1,
            }
        ],
    }


def _form() -> dict[str, Any]:
    """Return a team that counts, one item after the other, and knows what was said before."""
    return {
        "interlock": 1,
        "team": "form",
        "inputs": {"items": {"type": "array", "default": [1]}, "conversation": {"type": "array"}},
        "agents": {"counter": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "plan": [
            {
                "step": "count",
                "for_each": "{{ inputs.items }}",
                "agent": "counter",
                "do": "Count {{ item }} after {{ inputs.conversation | length }} messages.",
                "output": {"n": "integer"},
                "verify": {
                    "by": "checker",
                    "criteria": [{"check": "json_schema", "schema": {"properties": {"n": {"maximum": 9}}}}],
                },
                "attempts": 1,
            }
        ],
        "result": "{{ {'counted': steps.count.outputs, 'goal': goal} }}",
    }


def _office() -> dict[str, Any]:
    """Return a team whose manager plans, and that has the desk within it."""
    return {
        "interlock": 1,
        "team": "office",
        "agents": {
            "head": {"kind": "manager"},
            "clerks": {"kind": "team", "team": "../team.yaml", "description": "Does as it is told."},
            "checker": {"kind": "verifier"},
        },
    }


def _plans(said: str) -> dict[str, Any]:
    """Answer as the manager of the office."""
    if "which colour" in said:
        known = "blue" in said
        return {"makes": "answer", "text": "Then it is blue."} if known else {"makes": "question", "text": "Which one?"}
    if "hand it down" in said:
        criterion = {"kind": "lacks", "field": "", "value": "nonsense"}
        step = {"step": "down", "agent": "clerks", "do": "Please write the note.", "needs": [], "for_each": ""}
        return {"makes": "plan", "text": "", "steps": [{**step, "output": [], "criteria": [criterion]}]}
    return {"makes": "answer", "text": "Hello."}


def answer(call: Call) -> Reply | str | dict[str, Any]:
    """Do as the goal says."""
    said = call.conversation
    if "makes" in json.dumps(call.schema):
        return _plans(said)
    if "Count " in said:
        item = int(said.rpartition("Count ")[2].split()[0])
        return Answer({"n": item})
    if "wait for ever" in said:
        return Hang()
    if "write the note" in said and call.messages[-1]["role"] != "tool":
        return CallTool("files.write", {"path": "out/note.txt", "text": "hello"})
    if call.messages[-1]["role"] == "tool":
        return f"It says: {str(call.messages[-1]['content'])[:60]}"
    if "be long" in said:
        return "word " * 80
    return Answer("Done as told.", prompt_tokens=11, completion_tokens=3)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    """Keep the teams up, and serve them."""
    (folder / "out").mkdir()
    teams = [write_team(folder, _desk())]
    for team in (_form(), _office()):
        (folder / team["team"]).mkdir()
        teams.append(write_team(folder / team["team"], team))
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ScriptedServer(answer))
        command = await stack.enter_async_context(
            running("up", *map(str, teams), "--workers", "1", env={"INTERLOCK_MODEL_URL": model.url}, cwd=folder)
        )
        await command.until("node ")
        bus = await stack.enter_async_context(open_log(Place(folder / ".interlock"), "test"))
        context = await stack.enter_async_context(open_context(bus, Tracing(), Keys(KEYS.values())))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        await stack.enter_async_context(serving(make_app(context), listener))
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", model, bus, folder)


class Background:
    """Something that is kept open by a task of its own, so that fixtures of any scope can have it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._over = asyncio.Event()
        self._ready: asyncio.Future[Served] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    async def ready(self) -> Served:
        """Wait until it is open."""
        both: list[asyncio.Future[Any]] = [self._task, self._ready]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        return self._ready.result()

    async def close(self) -> None:
        """Close it."""
        self._over.set()
        await self._task

    async def _run(self) -> None:
        async with served(self._folder) as found:
            self._ready.set_result(found)
            await self._over.wait()
