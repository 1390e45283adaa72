"""A job that is submitted again is the same job, also where the broker was started anew in between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.cli import Running, broker_pid, interlock, kill, read_log, running
from tests.teams import digest_team, summary, write_items, write_team

from interlock.protocol.messages import JobClosed, JobSubmitted
from interlock.testing import Answer, Call, ScriptedServer

pytestmark = pytest.mark.timeout(150)

_ITEMS = 12


@asynccontextmanager
async def _up(folder: Path, team: str, model: str) -> AsyncIterator[Running]:
    """Have the team up until the block is left, and then everything of it gone, the broker too."""
    async with running("up", team, env={"INTERLOCK_MODEL_URL": model}, cwd=folder) as command:
        await command.until("node ")
        yield command
        command.process.terminate()
        assert (await command.finish()).status == 0


def _slowly(call: Call) -> Answer:
    return summary(call, delay=0.3)


async def _submit(folder: Path, team: str) -> str:
    """Submit the job and return what was said of it."""
    done = await interlock("submit", team, "go", "--id", "mine", cwd=folder)
    assert (done.status, done.out) == (0, "mine\n"), done.err
    return done.err


async def _entries_of_the_job(folder: Path) -> list[type]:
    log = await read_log(folder / ".interlock")
    return [type(entry.message) for entry in log if isinstance(entry.message, JobSubmitted | JobClosed)]


async def test_before_during_and_after_it_is_one_job(tmp_path: Path) -> None:
    """Submitted twice before anybody is up, while it is done, across the death of the broker, and when it is over."""
    write_items(tmp_path, _ITEMS)
    team = str(write_team(tmp_path, digest_team(parallel=2)))
    assert "submitted before" not in await _submit(tmp_path, team)
    assert "submitted before" in await _submit(tmp_path, team), "each of the two had a broker of its own"
    async with ScriptedServer(_slowly) as model:
        async with _up(tmp_path, team, model.url) as command:
            await model.until(lambda seen: len(seen.calls) >= 3)
            kill(broker_pid(command.process.pid))
            await command.until("starting it again")
            assert "submitted before" in await _submit(tmp_path, team)
            watched = await interlock("watch", "mine", "--json", cwd=tmp_path)
            assert (watched.status, watched.report["status"]) == (0, "succeeded"), watched.err
        calls = len(model.calls)
        assert "submitted before" in await _submit(tmp_path, team)
        async with _up(tmp_path, team, model.url):
            again = await interlock("watch", "mine", "--json", cwd=tmp_path)
            other = await interlock("submit", team, "go", "--id", "other", "--watch", "--json", cwd=tmp_path)
        assert again.report == watched.report
        assert other.status == 0, other.err
        assert len(model.calls) == calls + _ITEMS + 1, "what was over was done again"
    assert await _entries_of_the_job(tmp_path) == [JobSubmitted, JobClosed] * 2
