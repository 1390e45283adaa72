"""Teams within teams that are kept up: several jobs, orders for a team and for an agent, draining, many machines."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.cli import Running, agent_pids, interlock, kill, read_log, running
from tests.integration.nested.pyramid import Jobs, answer, write_pyramid
from tests.waiting import eventually

from interlock.protocol.state import Entry
from interlock.runtime.place import Place, open_log
from interlock.testing import ScriptedServer

pytestmark = pytest.mark.timeout(300)


@asynccontextmanager
async def _up(folder: Path, model: str, team: Path) -> AsyncIterator[Running]:
    async with running("up", str(team), env={"INTERLOCK_MODEL_URL": model}, cwd=folder) as command:
        await command.until("node ")
        yield command


async def test_a_team_that_is_up_is_up_with_the_teams_within_it(tmp_path: Path) -> None:
    """Two jobs at once are done, although who waits for their children is killed; drained it hands its waiting on."""
    team = write_pyramid(tmp_path, 2, 3)
    async with ScriptedServer(partial(answer, delay=1)) as server:
        async with _up(tmp_path, server.url, team) as command:
            assert "doer@level1 is up" in command.err.decode()
            for name in ("one", "two"):
                await interlock("submit", str(team), "go", "--id", name, cwd=tmp_path)
            await eventually(lambda: len(server.calls) >= 2)
            [waiting] = agent_pids(command.process.pid, "doer@level0")
            kill(waiting)
            done = await interlock("watch", "one", "--json", cwd=tmp_path)
            assert done.status == 0, done.err
            command.process.send_signal(signal.SIGTERM)
            ended = await command.finish()
            assert "ended: nothing is left in hand" in ended.err, ended.err
        async with _up(tmp_path, server.url, team):
            done = await interlock("watch", "two", "--json", cwd=tmp_path)
            assert done.status == 0, done.err
        jobs = Jobs(await read_log(tmp_path / ".interlock"))
    assert not jobs.doubled
    assert len(jobs.at_level(2)) == 4
    assert {closed.status for closed in jobs.closed.values()} == {"succeeded"}


async def test_an_order_for_the_team_around_stops_the_work_of_those_within(tmp_path: Path) -> None:
    """No agent of an inner team goes on with a job whose outer team is killed; the inner team may do other jobs."""
    team = write_pyramid(tmp_path, 2, 2, timeout=60)
    async with ScriptedServer(partial(answer, delay=30)) as server, _up(tmp_path, server.url, team) as command:
        await interlock("submit", str(team), "go", "--id", "paper", cwd=tmp_path)
        await eventually(lambda: len(server.calls) >= 4)
        killed = await interlock("kill", "--team", "level0", "--reason", "enough", cwd=tmp_path)
        assert killed.status == 0, killed.err
        await server.until(lambda seen: len(seen.clients_left) >= 4)
        assert agent_pids(command.process.pid, "doer@level1"), "who worked for it lives on"
        assert not agent_pids(command.process.pid, "doer@level0")
        jobs = Jobs(await read_log_of(tmp_path))
    assert {jobs.closed[job].status for job in jobs.submitted} == {"killed"}
    assert len(jobs.submitted) == 3


async def test_an_order_for_an_agent_that_is_a_team_ends_its_jobs_until_it_is_lifted(tmp_path: Path) -> None:
    """The jobs that do its work are killed and nothing new is begun; resumed, the tasks are tried again."""
    team = write_pyramid(tmp_path, 1, 1)
    slow = True
    async with (
        ScriptedServer(lambda call: answer(call, 30 if slow else 0)) as server,
        _up(tmp_path, server.url, team),
    ):
        await interlock("submit", str(team), "go", "--id", "paper", cwd=tmp_path)
        await eventually(lambda: len(server.calls) >= 1)
        killed = await interlock("kill", "--agent", "doer@level0", cwd=tmp_path)
        assert killed.status == 0, killed.err
        await server.until(lambda seen: len(seen.clients_left) >= 1)
        slow = False
        jobs = Jobs(await read_log_of(tmp_path))
        assert [jobs.closed[job].status for job in jobs.at_level(2)] == ["killed"]
        assert "paper" not in jobs.closed
        await interlock("resume", "--agent", "doer@level0", cwd=tmp_path)
        done = await interlock("watch", "paper", "--json", cwd=tmp_path)
        assert done.status == 0, done.err
        assert [len(task["jobs"]) for task in done.report["tasks"]] == [2]


async def read_log_of(folder: Path) -> list[Entry]:
    """Return what stands in the log of a folder whose broker runs."""
    entries: list[Entry] = []
    async with open_log(Place(folder / ".interlock"), "client") as bus, bus.follow() as batches:
        async for batch in batches:
            entries += batch.entries
            if batch.pending == 0:
                break
    return entries
