"""A thousand items through the real thing: broker, processes, HTTP."""

from pathlib import Path

import pytest
from tests.cli import agent_pids, interlock, kill, read_log, running
from tests.oracle import account_of
from tests.teams import digest_team, item_of, summary, write_items, write_team

from interlock.testing import Answer, Call, ScriptedServer

_ITEMS = 1000
_PARALLEL = 64


def _every_tenth_wrong_first(call: Call, delay: float = 0) -> Answer:
    item = item_of(call)
    return summary(call, wrong_first=item is not None and item % 10 == 0, delay=delay)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    write_items(tmp_path, _ITEMS)
    return write_team(tmp_path, digest_team(parallel=_PARALLEL))


async def test_a_thousand_items_lose_and_double_nothing(tmp_path: Path, team: Path) -> None:
    """1,000 items, every 10th first answer wrong: all accepted, 100 redone, nothing twice, never over the cap."""
    async with ScriptedServer(_every_tenth_wrong_first) as server:
        done = await interlock("run", str(team), "go", "--json", env={"INTERLOCK_MODEL_URL": server.url}, cwd=tmp_path)
    assert done.status == 0, done.err
    tasks = [task for task in done.report["tasks"] if task["step"] == "summarise"]
    assert [task["output"] for task in tasks] == [{"summary": f"item {n}"} for n in range(_ITEMS)]
    assert sum(task["attempts"] > 1 for task in tasks) == _ITEMS // 10
    account = account_of(await read_log(tmp_path / ".interlock"), "summarise")
    assert len(account.accepted) == _ITEMS
    assert len(account.redone) == _ITEMS // 10
    assert not account.doubled
    assert account.peak <= _PARALLEL
    assert server.peak <= _PARALLEL


async def test_a_killed_worker_changes_nothing(tmp_path: Path, team: Path) -> None:
    """A ``kill -9`` of a worker in the middle of the run: the same result, and nothing stands twice in the log."""
    async with ScriptedServer(_slowly) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as command:
            await server.until(lambda seen: len(seen.calls) >= _ITEMS // 4)
            victims = agent_pids(command.process.pid, "reader")
            assert victims
            kill(victims[0])
            done = await command.finish()
    assert done.status == 0, done.err
    tasks = [task for task in done.report["tasks"] if task["step"] == "summarise"]
    assert [task["output"] for task in tasks] == [{"summary": f"item {n}"} for n in range(_ITEMS)]
    account = account_of(await read_log(tmp_path / ".interlock"), "summarise")
    assert len(account.accepted) == _ITEMS
    assert not account.doubled
    assert "SIGKILL" in done.err


def _slowly(call: Call) -> Answer:
    return _every_tenth_wrong_first(call, delay=0.02)
