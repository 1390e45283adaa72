"""Several machines (here: several commands) that work for the same jobs."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.cli import Running, alive, descendants, interlock, kill, read_log, running
from tests.oracle import account_of
from tests.teams import digest_team, summary, write_items, write_team
from tests.waiting import eventually

from interlock.runtime.broker import running_broker
from interlock.runtime.bus import Bus
from interlock.runtime.presence import Node, Presence
from interlock.testing import Answer, Call, ScriptedServer

pytestmark = pytest.mark.timeout(300)

_ITEMS = 80

_MANY = 500
"""Enough that a job outlasts the start of another command."""


@pytest.fixture
def team(tmp_path: Path) -> Path:
    write_items(tmp_path, _ITEMS)
    return write_team(tmp_path, digest_team(parallel=4))


@pytest.fixture
def with_tools(tmp_path: Path) -> Path:
    """Return a team whose worker has a tool, in a file."""
    (tmp_path / "tools.py").write_text(
        "from interlock.agents.tools.tool import tool\n\n\n"
        '@tool(effect="read")\ndef look(what: str) -> str:\n    """Look at something."""\n    return what\n'
    )
    team = digest_team(parallel=4)
    team["agents"]["reader"]["tools"] = ["tools.look"]
    write_items(tmp_path, 1)
    more = {"tools": {"modules": ["tools.py"]}, "permissions": {"allow": ["tools.look"]}}
    return write_team(tmp_path, {**team, **more})


@asynccontextmanager
async def up(folder: Path, model: str, *arguments: str) -> AsyncIterator[Running]:
    """Run a command that keeps something up until that is ready."""
    async with running(*arguments, env={"INTERLOCK_MODEL_URL": model}, cwd=folder) as command:
        await command.until("is up\n")
        await command.until("node ")
        yield command


def there(folder: Path) -> list[str]:
    """Return the options with which others join the broker that runs on the folder."""
    address = running_broker(folder / ".interlock")
    assert address is not None
    return ["--nats", address.url, "--nats-keys", str(folder / ".interlock" / "keys")]


async def when(folder: Path, holds: Callable[[dict[str, Node]], bool]) -> dict[str, Node]:
    """Wait until something holds of the machines that are there, and return them by name."""
    address = running_broker(folder / ".interlock")
    assert address is not None
    async with Bus.connect(address, "main", "test") as bus:
        return await _when(Presence(bus).nodes, holds)


async def _when(
    nodes: Callable[[], Awaitable[list[Node]]], holds: Callable[[dict[str, Node]], bool]
) -> dict[str, Node]:
    with anyio.fail_after(60):
        while True:
            found = {node.name: node for node in await nodes()}
            if holds(found):
                return found
            await anyio.sleep(0.02)


def whole(report: dict[str, Any], items: int = _ITEMS) -> bool:
    """Whether a report has the answer to every item."""
    found = [task["output"] for task in report["tasks"] if task["step"] == "summarise"]
    return found == [{"summary": f"item {n}"} for n in range(items)]


async def test_a_worker_joins_and_leaves_in_the_middle_of_a_job(tmp_path: Path, team: Path) -> None:
    """It needs no team file, takes part, and told to end takes nothing more and ends what it has: none is doubled."""
    write_items(tmp_path, _MANY)
    left = False

    def slowly(call: Call) -> Answer:
        return summary(call, delay=0 if left else 0.5)

    async with ScriptedServer(slowly) as server, up(tmp_path, server.url, "up", str(team), "--name", "first"):
        (elsewhere := tmp_path / "elsewhere").mkdir()
        await interlock("submit", str(team), "go", "--id", "j", cwd=tmp_path)
        async with up(elsewhere, server.url, "worker", "--name", "helper", *there(tmp_path)) as helper:
            nodes = await when(tmp_path, lambda found: "helper" in found and found["helper"].in_hand > 0)
            assert {one.role for one in nodes["helper"].serves} == {"reader@digest", "checker@digest"}
            helper.process.send_signal(signal.SIGTERM)
            await when(tmp_path, lambda found: "helper" not in found or found["helper"].draining)
            ended = await helper.finish()
        left = True
        assert (ended.status, "ended: nothing is left in hand" in ended.err) == (0, True), ended.err
        nodes = await when(tmp_path, lambda found: "helper" not in found)
        assert list(nodes) == ["first"]
        done = await interlock("watch", "j", "--json", cwd=tmp_path)
        assert (done.status, whole(done.report, _MANY)) == (0, True), done.err
        assert len(server.calls) == _MANY + 1, "every item was asked for once"
    assert not account_of(await read_log(tmp_path / ".interlock"), "summarise").doubled


async def test_a_second_wish_ends_a_worker_at_once(tmp_path: Path, team: Path) -> None:
    """What it had in hand is done by others, once they may take it."""

    def stuck_once(call: Call) -> Answer:
        return summary(call, delay=60 if call.number <= 4 else 0)

    async with ScriptedServer(stuck_once) as server:
        async with up(tmp_path, server.url, "up", str(team), "--name", "first") as first:
            await interlock("submit", str(team), "go", "--id", "j", cwd=tmp_path)
            await server.until(lambda seen: len(seen.calls) >= 4)
            first.process.send_signal(signal.SIGTERM)
            await first.until("taking nothing more")
            below = descendants(first.process.pid)
            first.process.send_signal(signal.SIGTERM)
            with anyio.fail_after(5):
                ended = await first.finish()
            assert (ended.status, "ended at once" in ended.err) == (0, True), ended.err
            await eventually(lambda: not any(alive(pid) for pid in below), 5)
        async with up(tmp_path, server.url, "up", str(team)):
            done = await interlock("watch", "j", "--json", cwd=tmp_path)
    assert (done.status, whole(done.report)) == (0, True), done.err


async def test_managers_share_the_jobs_and_one_takes_over(tmp_path: Path, team: Path) -> None:
    """With a manager more, killed with ``kill -9`` in the middle of several jobs, all of them end whole."""
    jobs = [f"j{number}" for number in range(6)]
    async with ScriptedServer(summary) as server, up(tmp_path, server.url, "up", str(team), "--name", "first"):
        second = ("worker", "--role", "manager", "--name", "second", *there(tmp_path))
        async with up(tmp_path, server.url, *second) as manager:
            nodes = await when(tmp_path, lambda found: len(found) == 2)
            assert [one.role for one in nodes["second"].serves] == ["manager"]
            for job in jobs:
                await interlock("submit", str(team), "go", "--id", job, cwd=tmp_path)
            kill(manager.process.pid)
            await manager.process.wait()
        for job in jobs:
            done = await interlock("watch", job, "--json", cwd=tmp_path)
            assert done.status == 0, done.err
            assert whole(done.report)
    entries = await read_log(tmp_path / ".interlock")
    for job in jobs:
        assert not account_of([entry for entry in entries if entry.message.job == job], "summarise").doubled


async def test_what_a_worker_cannot_serve_is_said_in_a_line(tmp_path: Path, with_tools: Path) -> None:
    """A role that no team has, a team that never was up, and tools whose files are not here, end with status 2."""
    async with ScriptedServer(summary) as server, up(tmp_path, server.url, "up", str(with_tools)):
        env = {"INTERLOCK_MODEL_URL": server.url}
        role = await interlock("worker", "--role", "nobody@digest", *there(tmp_path), env=env, cwd=tmp_path)
        assert (role.status, "no plan names 'nobody@digest'" in role.err) == (2, True), role.err
        never = await interlock("worker", "--role", "a@other", *there(tmp_path), env=env, cwd=tmp_path)
        assert (never.status, "team other must be brought up" in never.err) == (2, True), never.err
        (tmp_path / "tools.py").rename(tmp_path / "elsewhere.py")
        files = await interlock("worker", *there(tmp_path), env=env, cwd=tmp_path)
        assert (files.status, "tools.py, which is not on this machine" in files.err) == (2, True), files.err
        checks = ("worker", "--role", "checker@digest", "--name", "checks", *there(tmp_path))
        async with up(tmp_path, server.url, *checks):
            nodes = await when(tmp_path, lambda found: "checks" in found)
            assert [one.role for one in nodes["checks"].serves] == ["checker@digest"]


async def test_one_key_is_enough_for_its_role(tmp_path: Path, team: Path) -> None:
    """With the key of a worker alone, a machine serves that role, is listed as that party, and drains."""
    async with ScriptedServer(summary) as server, up(tmp_path, server.url, "up", str(team), "--name", "first"):
        url, keys = there(tmp_path)[1], tmp_path / ".interlock" / "keys"
        one = ("--nats", url, "--nats-keys", str(keys / "worker-reader@digest.nk"))
        async with up(tmp_path, server.url, "worker", "--name", "alone", *one) as alone:
            nodes = await when(tmp_path, lambda found: "alone" in found)
            assert ([served.role for served in nodes["alone"].serves], nodes["alone"].by) == (
                ["reader@digest"],
                "worker-reader@digest",
            )
            done = await interlock("submit", str(team), "go", "--watch", "--json", cwd=tmp_path)
            assert done.status == 0, done.err
            alone.process.send_signal(signal.SIGTERM)
            ended = await alone.finish()
        assert (ended.status, "ended: nothing is left in hand" in ended.err) == (0, True), ended.err
