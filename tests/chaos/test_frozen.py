"""A run that was stopped (SIGSTOP) for longer than it may go without a word, and then goes on where it was."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.chaos.deaths import Deaths
from tests.chaos.hosts import agents_of, another_host, broker_for, job_of, way_in
from tests.cli import Running, descendants, interlock, read_log, running
from tests.teams import digest_team, summary, write_items, write_team

from interlock.protocol.messages import JobClosed, TaskResult
from interlock.protocol.state import Entry
from interlock.runtime.address import BrokerAddress
from interlock.runtime.killswitch import GUARDS
from interlock.testing import Answer, Call, ScriptedServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

_LEASES = 3
_TOO_LATE = "item, too late"


def outside_of(model: ScriptedServer, checks: Path) -> tuple[int, int]:
    """Return what a run did to the outside: calls of its model, runs of its check. Effects of tools belong here."""
    return len(model.calls), len(checks.read_text()) if checks.exists() else 0


def _team(folder: Path) -> tuple[Path, Path]:
    """Write a team whose check leaves a letter in a file whenever it runs; return both paths."""
    checks = folder / "checks"
    write_items(folder, 2)
    check = {"command": ["sh", "-c", f"printf x >> '{checks}'; cat > /dev/null"]}
    return write_team(folder, digest_team(criteria=[check])), checks


def _while_it_is_frozen(_call: Call) -> Answer:
    return Answer({"summary": _TOO_LATE}, delay=1.5)


@asynccontextmanager
async def _frozen(command: Running) -> AsyncIterator[Deaths]:
    """Have a command and its agents stopped for three leases at least; they go on when the block is left."""
    agents = agents_of(command)
    assert len(agents) >= 3
    async with Deaths.of(agents) as deaths:
        for pid in (command.process.pid, *descendants(command.process.pid)):
            os.kill(pid, signal.SIGSTOP)
        try:
            await anyio.sleep(_LEASES * GUARDS["strict"])
            yield deaths
        finally:
            os.kill(command.process.pid, signal.SIGCONT)
            for pid in deaths.living:
                os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def _running(folder: Path, team: Path, broker: BrokerAddress, model: ScriptedServer) -> AsyncIterator[Running]:
    """Run the team under the strict guard until its model was called for both items."""
    env = {"INTERLOCK_MODEL_URL": model.url, **way_in(broker)}
    arguments = ("run", str(team), "go", "--json", "--guard", "strict", "--workers", "2")
    async with running(*arguments, env=env, cwd=folder) as command:
        await model.until(lambda seen: len(seen.calls) >= 2)
        yield command


async def test_what_was_frozen_does_nothing_more(tmp_path: Path) -> None:
    """Its agents die where they stand, the answers of its model reach nobody, and the command ends its job."""
    team, checks = _team(tmp_path)
    async with ScriptedServer(_while_it_is_frozen) as model, broker_for(team, tmp_path) as broker:
        async with _running(tmp_path, team, broker, model) as command:
            async with _frozen(command) as deaths:
                living, before = set(deaths.living), outside_of(model, checks)
            done = await command.finish()
        log = await read_log(broker)
    assert living == set(), "who was stopped for too long does not live to see the end of it"
    assert done.status == 4, done.err
    assert "stopped by itself" in done.report["reason"]
    assert not [entry for entry in log if isinstance(entry.message, TaskResult)]
    assert outside_of(model, checks) == before == (2, 0)


async def test_an_order_given_meanwhile_holds(tmp_path: Path) -> None:
    """A kill order written while everything was stopped closes the job, and nothing comes after it."""
    team, checks = _team(tmp_path)
    async with ScriptedServer(_while_it_is_frozen) as model, broker_for(team, tmp_path) as broker:
        async with _running(tmp_path, team, broker, model) as command:
            async with _frozen(command):
                killed = await interlock("kill", "--team", "digest", env=way_in(broker), cwd=tmp_path)
                before, log_before = outside_of(model, checks), await read_log(broker)
            done = await command.finish()
        log = await read_log(broker)
    assert killed.status == 0, killed.err
    assert done.status == 4, done.err
    assert "team digest killed by order 1" in done.report["reason"]
    assert [entry.seq for entry in log] == [entry.seq for entry in log_before]
    assert outside_of(model, checks) == before == (2, 0)


async def test_who_took_over_is_not_disturbed(tmp_path: Path) -> None:
    """A second host ends the job meanwhile; the stale run adds nothing to it and reports what the other one did."""
    team, checks = _team(tmp_path)
    async with (
        ScriptedServer(_while_it_is_frozen) as model,
        ScriptedServer(summary) as second,
        broker_for(team, tmp_path) as broker,
        _running(tmp_path, team, broker, model) as command,
    ):
        async with _frozen(command), another_host(team, await job_of(command), broker, second.url):
            with anyio.fail_after(60):
                await second.until(lambda seen: len(seen.calls) >= 3)
                while not _is_closed(log_before := await read_log(broker)):  # noqa: ASYNC110 -- the log is elsewhere
                    await anyio.sleep(0.05)
            before = outside_of(model, checks)
        done = await command.finish()
        log = await read_log(broker)
    assert done.status == 0, done.err
    assert [entry.seq for entry in log] == [entry.seq for entry in log_before]
    assert all(_TOO_LATE not in entry.message.model_dump_json() for entry in log)
    assert outside_of(model, checks) == before
    assert len(model.calls) == 2


def _is_closed(log: list[Entry]) -> bool:
    return any(isinstance(entry.message, JobClosed) for entry in log)
