"""The engine vllm against a command that behaves as vLLM does: a real process with one below it."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import aiohttp
import anyio
import pytest
from tests.cli import alive
from tests.fake_vllm import install
from tests.waiting import eventually

from interlock.backends.chat import ChatMessage, ChatRequest
from interlock.backends.engines import VLLM_KEY_ENV, VLLM_SERVERS_ENV, open_chat, resolve_endpoint
from interlock.backends.errors import VllmFailed, VllmMissing
from interlock.backends.vllm import VllmSettings, vllm_server, vllm_servers
from interlock.protocol.team import ModelSettings

MODEL = ModelSettings(engine="vllm", name="tiny/model", options={"max-model-len": 512, "enforce-eager": True})
HOW = VllmSettings(start_timeout=30, restarts=3, first_wait=0.05)
HELLO = ChatRequest((ChatMessage("user", "Hello"),), temperature=0, max_tokens=5)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return the environment in which the command is the PATH's."""
    install(tmp_path)
    (tmp_path / "pids").touch()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "FAKE_VLLM_PIDS": str(tmp_path / "pids")}


def pids(environ: dict[str, str]) -> list[int]:
    return [int(pid) for pid in Path(environ["FAKE_VLLM_PIDS"]).read_text().split()]


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


async def test_a_server_lives_as_long_as_its_context(environ: dict[str, str]) -> None:
    """It is ready inside the context, found by the variables of its starter, and gone with all below it afterwards."""
    said: list[str] = []
    async with vllm_servers([MODEL, MODEL], environ, said.append, HOW) as variables:
        running = pids(environ)
        chat = open_chat(resolve_endpoint(MODEL, variables))
        reply = await chat.chat(HELLO)
        await chat.aclose()
        assert len(running) == 2, "two agents with one model share its server"
        assert all(map(alive, running))
        command = command_of(running[0])
    assert (reply.text, reply.model) == ("yes", "tiny/model")
    assert not any(map(alive, running))
    assert variables[VLLM_KEY_ENV] not in command
    assert command[command.index("tiny/model") + 1 :][2:5] == ["--max-model-len", "512", "--enforce-eager"]
    assert any("is ready after" in line for line in said)
    assert set(json.loads(variables[VLLM_SERVERS_ENV]).values()) == {chat.url}


async def test_a_person_is_told_how_the_server_comes_up(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is not ready, the last line of its log is told, without its time and place."""
    monkeypatch.setattr("interlock.backends.vllm._TELL", 0.2)
    said: list[str] = []
    async with vllm_server(MODEL, {**environ, "FAKE_VLLM_DELAY": "1"}, said.append, HOW):
        pass
    assert any(line.startswith("vllm tiny/model, ") and " s: Loading tiny/model --" in line for line in said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": {"no-such-option": 1}}, "unrecognized arguments: --no-such-option 1"),
        ({"name": "missing/model"}, "missing/model is not a local folder"),
    ],
)
async def test_what_cannot_be_served_is_told_with_the_last_words(
    environ: dict[str, str], change: dict[str, object], words: str
) -> None:
    """A wrong option and a model that is not there are errors with the end of the output, at once."""
    with pytest.raises(VllmFailed, match=r"ended with exit code [12] before it was ready") as caught:
        async with vllm_server(MODEL.model_copy(update=change), environ, how=HOW):
            pytest.fail("it cannot be ready")
    assert words in str(caught.value)
    assert not any(map(alive, pids(environ)))


async def test_a_server_that_does_not_get_ready_is_ended(environ: dict[str, str]) -> None:
    """Readiness has a deadline, and nothing outlives it."""
    with pytest.raises(VllmFailed, match=r"was not ready within 0\.5 s"):
        async with vllm_server(MODEL, {**environ, "FAKE_VLLM_DELAY": "60"}, how=VllmSettings(start_timeout=0.5)):
            pytest.fail("it cannot be ready")
    assert not any(map(alive, pids(environ)))


async def test_a_server_that_dies_is_started_again_and_calls_wait_for_it(environ: dict[str, str]) -> None:
    """A call that comes while the server is down is answered by the next one at the same URL; nothing old is left."""
    said: list[str] = []
    async with vllm_server(MODEL, environ, said.append, HOW) as endpoint:
        chat = open_chat(endpoint)
        assert (await chat.chat(HELLO)).text == "yes"
        old = pids(environ)
        os.kill(old[0], signal.SIGKILL)
        await eventually(lambda: not alive(old[0]))
        assert (await chat.chat(HELLO)).text == "yes"
        await chat.aclose()
        new = pids(environ)[2:]
        assert len(new) == 2
        assert not any(map(alive, old)), "what the dead server had started must not hold its memory"
    assert any("ended with exit code 137; starting it again in 0.05 s" in line for line in said)
    assert not any(map(alive, new))


async def test_a_server_that_always_dies_is_given_up(environ: dict[str, str]) -> None:
    """After its last restart whoever started it is told, with its last words."""
    given_up: list[VllmFailed] = []
    how = replace(HOW, restarts=1)
    async with vllm_server(MODEL, {**environ, "FAKE_VLLM_DIES": "1"}, how=how, failed=given_up.append):
        await eventually(lambda: given_up)
        assert not any(map(alive, pids(environ)))
    assert "ended with exit code 3, and was started again 1 time already" in str(given_up[0])
    assert "Ready" in given_up[0].output
    assert len(pids(environ)) == 4


PARENT = """
import asyncio, sys
from interlock.backends.vllm import vllm_server
from interlock.protocol.team import ModelSettings

async def main():
    async with vllm_server(ModelSettings(engine="vllm", name="tiny/model")):
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can find all processes below one")
async def test_a_killed_parent_leaves_nothing(environ: dict[str, str]) -> None:
    """Where whoever started the server is killed with SIGKILL, it ends, and so does what it had started."""
    async with await anyio.open_process([sys.executable, "-c", PARENT], env=environ, stderr=None) as parent:
        assert parent.stdout is not None
        assert (await parent.stdout.receive()).startswith(b"ready")
        running = pids(environ)
        parent.kill()
    assert len(running) == 2
    await eventually(lambda: not any(map(alive, running)))


async def test_spans_go_where_ours_go_if_the_server_can(environ: dict[str, str]) -> None:
    """An OTLP endpoint is handed on; a vLLM that knows no tracing is started without, and a person is told."""
    traced = {**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318/"}
    async with vllm_server(MODEL, traced, how=HOW):
        command = command_of(pids(environ)[0])
    assert "http://127.0.0.1:4318/v1/traces" in command
    said: list[str] = []
    async with vllm_server(MODEL, {**traced, "FAKE_VLLM_WITHOUT_OTLP": "1"}, said.append, HOW):
        pass
    assert "vllm tiny/model: this vLLM cannot trace; starting it without" in said


async def test_a_stranger_is_not_answered(environ: dict[str, str]) -> None:
    """Who does not have the key gets nothing."""
    async with (
        vllm_server(MODEL, environ, how=HOW) as endpoint,
        aiohttp.ClientSession() as http,
        http.get(f"{endpoint.url}/models") as answer,
    ):
        assert answer.status == 401


async def test_no_vllm_is_a_typed_error(tmp_path: Path) -> None:
    """The error says what was looked for and what helps."""
    with pytest.raises(VllmMissing, match=r"neither the command vllm nor.*INTERLOCK_VLLM.*model\.url"):
        async with vllm_server(MODEL, {"PATH": str(tmp_path)}):
            pytest.fail("there is none")
    with pytest.raises(VllmMissing, match=r"INTERLOCK_VLLM names '/no/such', which is no command"):
        async with vllm_server(MODEL, {"PATH": str(tmp_path), "INTERLOCK_VLLM": "/no/such"}):
            pytest.fail("there is none")
