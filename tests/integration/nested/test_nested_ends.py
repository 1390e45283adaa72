"""How jobs within jobs end, or go on, where the run of the one around them is interrupted or killed."""

import signal
from functools import partial
from pathlib import Path

import pytest
from tests.cli import alive, descendants, interlock, kill, read_log, running
from tests.integration.nested.pyramid import Jobs, answer, write_pyramid
from tests.waiting import eventually

from interlock.testing import ScriptedServer

pytestmark = pytest.mark.timeout(300)


async def test_an_interrupted_run_leaves_no_job_open(tmp_path: Path) -> None:
    """Ctrl-C ends the agents of all levels and closes all jobs as killed."""
    team = write_pyramid(tmp_path, 2, 2)
    async with ScriptedServer(partial(answer, delay=30)) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as job:
            await eventually(lambda: len(server.calls) >= 2)
            below = descendants(job.process.pid)
            job.process.send_signal(signal.SIGINT)
            done = await job.finish()
            await eventually(lambda: not any(alive(pid) for pid in below), 5)
    assert (done.status, done.report["status"]) == (4, "killed"), done.err
    jobs = Jobs(await read_log(tmp_path / ".interlock"))
    assert len(jobs.submitted) == 3
    assert {jobs.closed[job].status for job in jobs.submitted} == {"killed"}


async def test_a_run_that_was_killed_goes_on_with_its_jobs(tmp_path: Path) -> None:
    """Killed with -9 and begun anew with the same id: nothing is lost, and no job or task is there twice."""
    team = write_pyramid(tmp_path, 3, 4)
    async with ScriptedServer(partial(answer, delay=1)) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        async with running("run", str(team), "go", "--id", "paper", env=env, cwd=tmp_path) as job:
            await eventually(lambda: len(server.calls) >= 4)
            below = descendants(job.process.pid)
            kill(job.process.pid)
            await eventually(lambda: not any(alive(pid) for pid in below), 10)
        done = await interlock("run", str(team), "go", "--id", "paper", "--json", env=env, cwd=tmp_path)
    assert (done.status, done.report["status"]) == (0, "succeeded"), done.err
    jobs = Jobs(await read_log(tmp_path / ".interlock"))
    assert not jobs.doubled
    assert {closed.status for closed in jobs.closed.values()} == {"succeeded"}
    assert done.report["usage"]["calls"] == 12
