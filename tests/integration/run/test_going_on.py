"""A job outlives every process: what is in the log goes on where it was, and is the same job whoever runs it."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from tests.cli import alive, descendants, interlock, read_log, running
from tests.oracle import account_of
from tests.teams import digest_team, item_of, summary, write_items, write_team
from tests.waiting import eventually

from interlock.protocol.messages import JobSubmitted, PlanAccepted, TaskResult
from interlock.testing import Answer, Call, ScriptedServer

pytestmark = pytest.mark.timeout(120)

_ITEMS = 60


def _slowly(call: Call) -> Answer:
    return summary(call, delay=0.05)


async def test_all_at_once_are_killed_and_the_same_id_goes_on(tmp_path: Path) -> None:
    """After ``kill -9`` of everything a run of the same id plans nothing again and pays for no logged answer again."""
    write_items(tmp_path, _ITEMS)
    team = write_team(tmp_path, digest_team(parallel=4))
    async with ScriptedServer(_slowly) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--id", "j1", env=env, cwd=tmp_path) as command:
            await server.until(partial(_was_called, _ITEMS // 2))
            victims = [command.process.pid, *descendants(command.process.pid)]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            await eventually(lambda: not any(alive(pid) for pid in victims))
        before = [entry for entry in await read_log(tmp_path / ".interlock") if isinstance(entry.message, TaskResult)]
        paid = len(server.calls)
        done = await interlock("run", str(team), "go", "--id", "j1", "--json", env=env, cwd=tmp_path)
        asked_again = [item_of(call) for call in server.calls[paid:]]
    assert done.status == 0, done.err
    assert done.report["job_id"] == "j1"
    log = await read_log(tmp_path / ".interlock")
    account = account_of(log, "summarise")
    assert len(account.accepted) == _ITEMS
    assert not account.doubled
    assert sum(isinstance(entry.message, JobSubmitted | PlanAccepted) for entry in log) == 2
    known = {int(entry.message.task.partition(":")[2]) for entry in before}
    assert len(known) > _ITEMS // 4
    assert known.isdisjoint(asked_again)


async def test_an_id_is_one_job_for_ever(tmp_path: Path) -> None:
    """Running an id again that is over gives the same report, asks no model, and leaves the log as it was."""
    write_items(tmp_path, 3)
    team = write_team(tmp_path, digest_team())
    async with ScriptedServer(summary) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        first = await interlock("run", str(team), "go", "--id", "j1", "--json", env=env, cwd=tmp_path)
        paid, log = len(server.calls), await read_log(tmp_path / ".interlock")
        second = await interlock("run", str(team), "another goal", "--id", "j1", "--json", env=env, cwd=tmp_path)
        assert len(server.calls) == paid
    assert (first.status, second.status) == (0, 0)
    assert second.report == first.report
    assert len(await read_log(tmp_path / ".interlock")) == len(log)


def _was_called(times: int, server: ScriptedServer) -> bool:
    return len(server.calls) >= times
