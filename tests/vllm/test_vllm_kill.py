"""A kill order while the real vLLM generates."""

import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

from bench.vllm.serving import meters
from tests.teams import write_items, write_team
from tests.vllm.real import at, command, environment_of
from tests.waiting import eventually

from interlock.backends.chat import ChatMessage, ChatRequest
from interlock.backends.engines import Endpoint, open_chat
from interlock.protocol.control import AllScope
from interlock.runtime.killswitch import command as kill
from interlock.runtime.place import Place, open_log

_ITEMS = 8
_BOUND = 1.0
"""Seconds from the order to the end of the last generation."""


def _team(server: Endpoint) -> dict[str, Any]:
    """Return a team whose answers take minutes."""
    return {
        "interlock": 1,
        "team": "stories",
        "model": at(server, max_tokens=3000),
        "agents": {"writer": {"kind": "worker"}, "checker": {"kind": "verifier"}},
        "plan": [
            {
                "step": "write",
                "for_each": {"jsonl": "items.jsonl"},
                "agent": "writer",
                "do": "Tell story {{ item.n }}, as long as you can.",
                "output": {"story": {"type": "string", "minLength": 9000}},
            }
        ],
        "limits": {"parallel": _ITEMS},
    }


async def test_a_kill_ends_all_generation_within_a_second(server: Endpoint, tmp_path: Path) -> None:
    """Eight requests are being answered; a second after the order vLLM runs none of them, and none waits."""
    write_items(tmp_path, _ITEMS)
    team, env = write_team(tmp_path, _team(server)), environment_of(server)
    begun = meters(server.url).generated
    async with command("run", str(team), "stories", "--json", env=env, cwd=tmp_path) as run:
        await eventually(lambda: meters(server.url).running == _ITEMS)
        await eventually(lambda: meters(server.url).generated > begun + _ITEMS)
        async with open_log(Place(tmp_path / ".interlock"), "test") as bus:
            ordered = time.monotonic()
            await kill(bus, AllScope(), stop=True, reason="enough")
            await eventually(lambda: (now := meters(server.url)).running + now.waiting == 0, 20)
            took = time.monotonic() - ordered
        done = await run.finish()
    assert done.status == 4, done.err
    assert took <= _BOUND, f"vLLM went on for {took:.2f} s"
    after = meters(server.url).generated
    assert (await _answers(server), meters(server.url).generated > after) == (True, True), "it must be well after that"


async def _answers(server: Endpoint) -> bool:
    async with aclosing(open_chat(server)) as chat:
        return bool((await chat.chat(ChatRequest((ChatMessage("user", "Say hello."),), 0, 5))).text)
