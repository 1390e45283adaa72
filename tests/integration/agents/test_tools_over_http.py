"""An agent with tools against a real server: what it asks, what it is told, and that waiting changes nothing of it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from interlock.agents.toolbox import AttemptSuspended, Observation, Suspended
from interlock.agents.worker import WorkOutcome, execute
from interlock.backends.chat import ChatModel, ToolCall, ToolOffer
from interlock.backends.engines import Endpoint, open_chat
from interlock.backends.retry import RetrySettings
from interlock.protocol.base import Json
from interlock.protocol.messages import ActionTaken, Grant, TaskAssigned
from interlock.protocol.team import Agent, Engine, ModelSettings
from interlock.testing import (
    Answer,
    Call,
    CallTool,
    CallTools,
    Fail,
    Reply,
    Script,
    ScriptedServer,
    otherwise,
    when,
)

ONCE = RetrySettings(attempts=1, first_wait=0.002, longest_wait=0.004, longest_retry_after=0.5)
WORKER = Agent(kind="worker")
SETTINGS = ModelSettings(max_tokens=200)
PATH: dict[str, Json] = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
COUNT: dict[str, Json] = {"type": "object", "properties": {"rules": {"type": "integer"}}, "required": ["rules"]}
SCRIPT = [
    when("Count the rules", CallTools(CallTool("files.read", {"path": "rule.txt"}), CallTool("files.list"))),
    when("rules.txt", CallTool("files.read", {"path": "rules.txt"})),
    when("no stealing", "There are two rules."),
    when("Now give the result", {"rules": 2}),
]


class Disk:
    """A toolbox that asks a person before each call, if told to."""

    def __init__(self, *, asks: bool = False) -> None:
        self.offers = (
            ToolOffer("files.read", "Read a file.", PATH),
            ToolOffer("files.list", "List the files.", {"type": "object", "properties": {}}),
        )
        self.asks = asks
        self.allowed: set[str] = set()
        self.actions: tuple[ActionTaken, ...] = ()

    async def call(self, call: ToolCall) -> Observation:
        """Read from a disk with one file."""
        if self.asks and call.id not in self.allowed:
            self.allowed.add(call.id)
            raise Suspended(call.name)
        arguments = json.loads(call.arguments)
        self.actions += (ActionTaken(tool=call.name, arguments=arguments, outcome="done"),)
        if call.name == "files.list":
            return Observation("rules.txt")
        found = arguments.get("path") == "rules.txt"
        return Observation("no lying, no stealing" if found else "no such file", failed=not found)


@asynccontextmanager
async def served(script: Script, engine: Engine = "openai") -> AsyncIterator[tuple[ChatModel, ScriptedServer]]:
    async with ScriptedServer(script) as server:
        chat = open_chat(Endpoint(url=server.url, name="m", engine=engine, timeout=5), ONCE)
        try:
            yield chat, server
        finally:
            await chat.aclose()


def assignment(**fields: Any) -> TaskAssigned:
    given: dict[str, Any] = {
        "id": "m1",
        "ns": "test",
        "job": "j1",
        "task": "t1",
        "attempt": 1,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "step": "count",
        "role": "reader@team",
        "verifier": "checker@team",
        "instruction": "Count the rules.",
        "output_schema": COUNT,
        "grant": Grant(seconds=20),
    }
    return TaskAssigned.model_validate(given | fields)


async def test_an_agent_finds_its_way_with_tools() -> None:
    """It reads, fails, looks around, reads again and answers; the schema comes last and alone."""
    async with served(SCRIPT) as (model, server):
        outcome = await execute(assignment(), WORKER, model, SETTINGS, toolbox=Disk())
    assert (outcome.status, outcome.output) == ("done", {"rules": 2})
    assert [(action.tool, action.arguments) for action in outcome.actions] == [
        ("files.read", {"path": "rule.txt"}),
        ("files.list", {}),
        ("files.read", {"path": "rules.txt"}),
    ]
    assert [(len(call.tools), call.schema) for call in server.calls] == [(2, None)] * 3 + [(0, COUNT)]
    assert [len(call.observations) for call in server.calls] == [0, 2, 3, 3]
    assert "no such file" in server.calls[1].observations[0]


async def in_pieces(model: ChatModel, disk: Disk) -> tuple[WorkOutcome, int]:
    """Run an attempt, going on from JSON whenever it waits; return the outcome and how often it waited."""
    transcript: Json = None
    for waited in range(20):
        try:
            outcome = await execute(assignment(), WORKER, model, SETTINGS, toolbox=disk, transcript=transcript)
        except AttemptSuspended as pause:
            transcript = json.loads(json.dumps(pause.transcript))
        else:
            return outcome, waited
    raise AssertionError("it never ends")


@pytest.mark.parametrize("engine", ["openai", "local"])
async def test_waiting_for_a_person_changes_nothing(engine: Engine) -> None:
    """An attempt that waits before each of its calls asks the model the same and comes to the same."""
    script: Script = SCRIPT if engine == "openai" else in_words
    async with served(script, engine) as (model, server):
        whole, never = await in_pieces(model, Disk())
        calls = len(server.calls)
        waited, times = await in_pieces(model, Disk(asks=True))
        assert [call.body for call in server.calls[calls:]] == [call.body for call in server.calls[:calls]]
    assert (never, times) == (0, len(whole.actions))
    assert waited == whole


def in_words(call: Call) -> Reply:
    """Act as a small model without tool calls, which answers in the form that it is bound to."""
    if call.schema == COUNT:
        return Answer({"rules": 2})
    if "no stealing" in call.prompt:
        return Answer({"final": True})
    if "rules.txt" in call.prompt:
        return Answer({"tool": "files.read", "arguments": {"path": "rules.txt"}})
    return Answer({"tool": "files.list", "arguments": {}})


async def test_an_engine_without_tool_calls_uses_tools_too() -> None:
    """With the engine ``local`` the same loop runs over words: actions bound to a form, results as quoted data."""
    async with served(in_words, "local") as (model, server):
        outcome = await execute(assignment(), WORKER, model, SETTINGS, toolbox=Disk())
    assert (outcome.status, outcome.output) == ("done", {"rules": 2})
    assert [action.tool for action in outcome.actions] == ["files.list", "files.read"]
    roles = [[message["role"] for message in call.messages] for call in server.calls]
    assert all(set(these) <= {"system", "user", "assistant"} for these in roles)
    assert all(one != other for these in roles for one, other in pairwise(these))
    assert 'Result of {"arguments":{},"tool":"files.list"}:\n<<<' in str(server.calls[1].messages[3]["content"])


async def test_a_text_from_an_engine_without_tool_calls() -> None:
    """Where no schema binds the output, the end of the actions is followed by a free answer."""

    def answer(call: Call) -> Reply:
        return Answer({"final": True}) if call.schema else Answer("two rules")

    async with served(answer, "local") as (model, server):
        outcome = await execute(assignment(output_schema=None), WORKER, model, SETTINGS, toolbox=Disk())
    assert (outcome.status, outcome.output, len(server.calls)) == ("done", "two rules", 2)


HIJACKED: list[tuple[Callable[[], Script], str]] = [
    (lambda: CallTool("shell.run", {"command": "rm"}), "gave_up"),  # the same again and again
    (lambda: [when("Count", CallTool("files.read", "{")), otherwise(Fail(500))], "gave_up"),
    (lambda: [when("Count", CallTools()), otherwise({"rules": 1})], "done"),
]


@pytest.mark.parametrize(("script", "status"), HIJACKED)
async def test_whatever_a_model_does_is_an_outcome(script: Callable[[], Script], status: str) -> None:
    """Tools that were never offered, broken arguments, servers that fail: none of it reaches the toolbox or crashes."""
    disk = Disk()
    async with served(script()) as (model, _):
        outcome = await execute(assignment(), WORKER, model, SETTINGS, toolbox=disk)
    assert (outcome.status, disk.actions) == (status, ())
