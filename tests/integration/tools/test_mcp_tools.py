"""Tools of real MCP servers, over standard input and output and over HTTP."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.unit.agents.tools.calls import context_of_call
from tests.waiting import eventually

from interlock.agents.tools.calling import Tool
from interlock.agents.tools.catalogue import discover, open_tools
from interlock.agents.tools.errors import (
    McpServerFailed,
    ToolArgumentsInvalid,
    ToolChanged,
    ToolFailed,
    ToolSettingsInvalid,
    ToolUncertain,
)
from interlock.agents.tools.secrets import NO_SECRETS, Secrets
from interlock.protocol.team import Agent, McpServer, SecretSource, Step, Team, ToolSources
from interlock.protocol.tools import EffectClass, ToolSpec

pytestmark = pytest.mark.timeout(180)
SERVER = Path(__file__).with_name("mcp_server.py")
EFFECTS: dict[str, EffectClass] = {
    "add": "read",
    "shout": "once",
    "hang": "once",
    "block": "read",
    "environment": "read",
}
SECRETS = Secrets({"SERVICE_TOKEN": "canary-5ecre7-value"})


def stdio(folder: Path, **more: object) -> McpServer:
    command = (sys.executable, str(SERVER), "stdio", str(folder))
    return McpServer.model_validate({"command": command, "effects": EFFECTS, **more})


@asynccontextmanager
async def http(folder: Path) -> AsyncIterator[McpServer]:
    """Run the server over HTTP."""
    process = subprocess.Popen([sys.executable, SERVER, "http", folder], stderr=subprocess.DEVNULL)  # noqa: ASYNC220 -- it returns at once
    try:
        await eventually((folder / "port").exists)
        yield McpServer(url=f"http://127.0.0.1:{(folder / 'port').read_text()}/mcp", effects=EFFECTS)
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def served(kind: str, folder: Path) -> AsyncIterator[McpServer]:
    if kind == "stdio":
        yield stdio(folder)
    else:
        async with http(folder) as server:
            yield server


def team_with(server: McpServer, name: str = "things") -> Team:
    return Team(
        interlock=1,
        team="t",
        agents={"a": Agent(kind="worker")},
        plan=(Step(step="s", agent="a", do="x"),),
        tools=ToolSources(mcp={name: server}),
        secrets={"SERVICE_TOKEN": SecretSource(env="SERVICE_TOKEN")},
    )


async def found(server: McpServer, base: Path, secrets: Secrets = NO_SECRETS) -> dict[str, ToolSpec]:
    return await discover(team_with(server), base, secrets, mcp_seconds=30)


_known: dict[str, ToolSpec] = {}  # what the server says of its tools is the same in every test that opens them


@asynccontextmanager
async def opened(
    server: McpServer, base: Path, *names: str, secrets: Secrets = NO_SECRETS, seconds: float = 30
) -> AsyncIterator[Mapping[str, Tool]]:
    """Open tools of the server as they are now."""
    if not _known:
        _known.update(await found(server, base, secrets))
    specs = _known
    sources = ToolSources(mcp={"things": server})
    wanted = [specs[f"things.{name}"] for name in names]
    async with open_tools(sources, base, wanted, secrets, mcp_seconds=seconds) as tools:
        yield tools


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_tools_of_a_server_are_called(kind: str, tmp_path: Path) -> None:
    """They are found with their schema, called with checked arguments and defaults, and return what the server does."""
    async with served(kind, tmp_path) as server, opened(server, tmp_path, "add", "shout") as tools:
        add = tools["things.add"]
        assert add.spec.description == "Add two numbers."
        assert add.complete({"a": 2}) == {"a": 2, "b": 40}
        assert await add.call({"a": 2}, context_of_call()) == {"result": 42}
        with pytest.raises(ToolArgumentsInvalid, match=r"\$\.a"):
            await add.call({"a": "two"}, context_of_call())
        assert await tools["things.shout"].call({"text": "é"}, context_of_call(key="k-7")) == {"result": "É"}
        assert (tmp_path / "shouts").read_text() == "k-7\n"


async def test_a_server_never_makes_its_tools_look_harmless(tmp_path: Path) -> None:
    """What the team file does not say is irreversible; all of it is outside text and goes beyond this machine."""
    server = stdio(tmp_path, effects={"add": "read"}, destinations={"shout": ("text",)})
    specs = await found(server, tmp_path)
    assert {name: spec.effect for name, spec in specs.items() if name.startswith("things.")} == {
        "things.add": "read",
        **{
            f"things.{name}": "irreversible"
            for name in ("block", "die", "environment", "fail", "hang", "pull_the_rug", "shout", "spawn")
        },
    }
    assert all(spec.network and spec.outside for name, spec in specs.items() if name.startswith("things."))
    assert specs["things.shout"].destinations == ("text",)
    assert specs["things.fail"].primary == "reason"


async def test_a_server_gets_little_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH, HOME, LANG and the secrets that it is given, and what it tells of them is scrubbed."""
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-servers")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("USER", "somebody")
    server = stdio(tmp_path, env=("SERVICE_TOKEN",))
    async with opened(server, tmp_path, "environment", secrets=SECRETS) as tools:
        environment = await tools["things.environment"].call({}, context_of_call())
    assert isinstance(environment, dict)
    assert {*environment} - {"LC_CTYPE"} == {"PATH", "HOME", "LANG", "SERVICE_TOKEN"}
    assert environment["SERVICE_TOKEN"] == "[secret SERVICE_TOKEN]"
    pid = int((tmp_path / "pid").read_text())
    await eventually(lambda: not is_running(pid))


async def test_what_a_server_writes_is_logged_without_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its standard error goes into the log, scrubbed."""
    caplog.set_level(logging.INFO, "interlock")
    async with opened(stdio(tmp_path, env=("SERVICE_TOKEN",)), tmp_path, "add", secrets=SECRETS):
        await eventually(lambda: "on its standard error: [secret SERVICE_TOKEN]" in caplog.text)
    assert "canary" not in caplog.text


async def test_errors_of_a_server_leave_open_what_it_did(tmp_path: Path) -> None:
    """A tool that says it failed may have done half of it; one that is not there was not called."""
    async with opened(stdio(tmp_path), tmp_path, "fail", "add") as tools:
        with pytest.raises(ToolUncertain, match=r"the server says: .*failed: half way"):
            await tools["things.fail"].call({"reason": "half way"}, context_of_call())
        assert await tools["things.add"].call({"a": 1}, context_of_call()) == {"result": 41}


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_a_tool_that_changes_is_not_called(kind: str, tmp_path: Path) -> None:
    """A server that says something else of its tool in the middle of a session is refused before the call."""
    async with served(kind, tmp_path) as server, opened(server, tmp_path, "add", "pull_the_rug", "shout") as tools:
        assert await tools["things.add"].call({"a": 1}, context_of_call()) == {"result": 41}
        await tools["things.pull_the_rug"].call({}, context_of_call())
        with pytest.raises(
            ToolFailed, match="is not what it was when the job was submitted: it differs in description"
        ):
            await tools["things.add"].call({"a": 1}, context_of_call())
        assert await tools["things.shout"].call({"text": "x"}, context_of_call()) == {"result": "X"}


@pytest.mark.parametrize(("how", "fields"), [("changed", ("description",)), ("gone", ())])
async def test_a_tool_that_changed_since_is_not_opened(how: str, fields: tuple[str, ...], tmp_path: Path) -> None:
    """A worker whose server is not what it was when the job was submitted does not open the tool."""
    specs = await found(stdio(tmp_path), tmp_path)
    (tmp_path / how).touch()
    with pytest.raises(ToolChanged) as changed:
        async with open_tools(
            ToolSources(mcp={"things": stdio(tmp_path)}), tmp_path, [specs["things.add"]], NO_SECRETS
        ):
            pass
    assert changed.value.fields == fields


async def test_a_class_that_the_team_file_no_longer_says_is_a_change(tmp_path: Path) -> None:
    """What was submitted as irreversible stays so: a worker with another team file does not open it."""
    specs = await found(stdio(tmp_path, effects={}), tmp_path)
    with pytest.raises(ToolChanged, match="differs in effect"):
        async with open_tools(
            ToolSources(mcp={"things": stdio(tmp_path)}), tmp_path, [specs["things.add"]], NO_SECRETS
        ):
            pass


async def test_a_call_that_hangs_is_given_up(tmp_path: Path) -> None:
    """What the server did is open; it is asked again for other things."""
    async with opened(stdio(tmp_path), tmp_path, "hang", "add", seconds=3) as tools:
        began = time.monotonic()
        with pytest.raises(ToolUncertain, match="did not answer within 3 s"):
            await tools["things.hang"].call({}, context_of_call())
        assert time.monotonic() - began < 20
        pid = (tmp_path / "pid").read_text()
        assert await tools["things.add"].call({"a": 1}, context_of_call()) == {"result": 41}
        assert (tmp_path / "pid").read_text() == pid


async def test_a_server_that_answers_nothing_is_started_again(tmp_path: Path) -> None:
    """A server stuck in a loop is ended, and the next call gets a new one."""
    async with opened(stdio(tmp_path), tmp_path, "block", "add", seconds=5) as tools:
        stuck = int((tmp_path / "pid").read_text())
        with pytest.raises(ToolFailed, match="did not answer within 5 s"):
            await tools["things.block"].call({}, context_of_call())
        assert await tools["things.add"].call({"a": 1}, context_of_call()) == {"result": 41}
        assert int((tmp_path / "pid").read_text()) != stuck
        await eventually(lambda: not is_running(stuck))


async def test_a_server_that_dies_is_started_again(tmp_path: Path) -> None:
    """A death in the middle of a call leaves open what it did; the next call gets a new server."""
    async with opened(stdio(tmp_path), tmp_path, "die", "add") as tools:
        for _ in range(2):
            with pytest.raises(ToolUncertain, match="the server answers: Connection closed"):
                await tools["things.die"].call({}, context_of_call())
            assert await tools["things.add"].call({"a": 1}, context_of_call()) == {"result": 41}
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not is_running(pid))
        with suppress(ToolFailed):  # it may still be taken for alive, and is found dead when it is asked
            await tools["things.add"].call({"a": 1}, context_of_call())
        assert await tools["things.add"].call({"a": 1}, context_of_call()) == {"result": 41}
    await eventually(lambda: not is_running(int((tmp_path / "pid").read_text())))


async def test_a_server_dies_with_its_parent(tmp_path: Path) -> None:
    """However a worker process ends, its servers end too."""
    code = f"""
import anyio, os, pathlib, sys
from interlock.agents.tools.catalogue import open_tools, discover
from interlock.agents.tools.secrets import NO_SECRETS
from tests.integration.tools.test_mcp_tools import opened, stdio
async def main():
    folder = pathlib.Path({str(tmp_path)!r})
    async with opened(stdio(folder), folder, "add"):
        print("open", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])  # noqa: ASYNC220 -- it returns at once
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"open\n"
        pid = int((tmp_path / "pid").read_text())
        assert is_running(pid)
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()
    await eventually(lambda: not is_running(pid), seconds=10)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (("there-is-no-such-program",), "there-is-no-such-program"),
        (("sh", "-c", "echo broken canary-5ecre7-value >&2; exit 4"), r"it wrote: broken \[secret SERVICE_TOKEN\]"),
        (("sh", "-c", "echo this is no MCP; sleep 600"), "did not start within 3 s"),
        (("sleep", "600"), "did not start within 3 s"),
    ],
)
async def test_what_is_no_server_is_said(command: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    """A program that is missing, ends, or does not speak MCP is an error that says so, with what it wrote."""
    server = McpServer(command=command, env=("SERVICE_TOKEN",))
    with pytest.raises(McpServerFailed, match=problem) as failed:
        await discover(team_with(server), tmp_path, SECRETS, mcp_seconds=3)
    assert "the MCP server 'things'" in str(failed.value)


async def test_an_address_where_nothing_listens_is_said(tmp_path: Path) -> None:
    """So is a URL that leads nowhere."""
    with pytest.raises(McpServerFailed, match="the MCP server 'things'"):
        await discover(team_with(McpServer(url="http://127.0.0.1:1/mcp")), tmp_path, NO_SECRETS, mcp_seconds=5)


async def test_servers_start_only_where_one_of_their_tools_is_wanted(tmp_path: Path) -> None:
    """A worker that needs no tool of a server does not start it."""
    sources = ToolSources(mcp={"things": stdio(tmp_path)})
    async with open_tools(sources, tmp_path, [], NO_SECRETS) as tools:
        assert dict(tools) == {}
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize(
    ("name", "server", "problem"),
    [
        ("files", McpServer(command=("x",)), "built-in tools are called like that"),
        ("things", McpServer(), "either a command to start or a url"),
        ("things", McpServer(command=("x",), env=("OTHER",)), "'OTHER' is none of the team's secrets"),
        ("things", McpServer(url="http://h/", env=("SERVICE_TOKEN",)), "has no environment of ours"),
        ("things", McpServer(command=("x",), url="http://h/"), "either a command to start or a url"),
    ],
)
async def test_servers_must_be_said_well(name: str, server: McpServer, problem: str, tmp_path: Path) -> None:
    """No server can pass its tools off as built-in ones, and each is either a command or a URL."""
    with pytest.raises(ToolSettingsInvalid, match=problem):
        await discover(team_with(server, name), tmp_path, NO_SECRETS)


async def test_an_error_of_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    """What is raised while tools are open is not wrapped in a group, and the server is ended."""
    with pytest.raises(KeyError, match="mine"):
        async with opened(stdio(tmp_path), tmp_path, "add"):
            raise KeyError("mine")
    pid = int((tmp_path / "pid").read_text())
    await eventually(lambda: not is_running(pid))
