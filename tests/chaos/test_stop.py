"""How fast a kill order ends real runs: the bench in small, and what the model server sees of it."""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
import pytest
from tests.chaos.deaths import Deaths
from tests.chaos.hosts import agents_of
from tests.cli import environment, running
from tests.teams import digest_team, write_items, write_team

from interlock.protocol.control import AllScope
from interlock.runtime.killswitch import command
from interlock.runtime.place import Place, open_log
from interlock.testing import Hang, ScriptedServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

_ROOT = Path(__file__).parents[2]


async def test_nothing_outlives_a_kill() -> None:
    """Busy loops, ignored signals, daemons, SIGSTOP, calls and stuck C code: all gone within a second, no survivor."""
    arguments = [sys.executable, "-m", "bench.stop", "--kills", "2", "--workers", "6", "--json"]
    ran = await anyio.run_process(arguments, cwd=_ROOT, env=environment())
    found = json.loads(ran.stdout.splitlines()[-1])
    print(found)  # noqa: T201 -- a figure
    assert found["kills"] == 2
    assert found["survivors"] == 0
    assert found["processes"] >= 2 * (6 + 2 + 3)
    assert found["p99_s"] < 1


async def test_the_model_server_sees_its_connections_closed_at_once(tmp_path: Path) -> None:
    """Calls of agents that listen end in the moment of the order: over three kills, within 100 ms."""
    folders = [Path(tempfile.mkdtemp(dir=tmp_path)) for _ in range(3)]
    kills = [await _kill_in_calls(folder) for folder in folders]
    for closed, gone in kills:
        figures = f"p50 {statistics.median(closed):.3f} s, max {max(closed):.3f} s, all gone {gone:.3f} s"
        print(f"connections closed: {figures}")  # noqa: T201 -- a figure
    assert statistics.median(statistics.median(closed) for closed, _ in kills) < 0.1
    assert max(max(closed) for closed, _ in kills) < 0.5
    assert max(gone for _, gone in kills) < 1


async def _kill_in_calls(folder: Path) -> tuple[list[float], float]:
    """Return when each call's connection was closed and when all agents were gone, in seconds after the order."""
    write_items(folder, 16)
    team = write_team(folder, digest_team())
    async with ScriptedServer(Hang()) as model:
        env = {"INTERLOCK_MODEL_URL": model.url}
        async with running("run", str(team), "go", "--workers", "4", "--json", env=env, cwd=folder) as run:
            await model.until(lambda seen: len(seen.calls) >= 16)
            async with Deaths.of(agents_of(run)) as deaths, open_log(Place(folder / ".interlock"), "test") as bus:
                began = time.monotonic()
                await command(bus, AllScope(), stop=True)
                with anyio.fail_after(10):
                    await model.until(lambda seen: len(seen.clients_left) >= 16)
                await deaths.all(5)
            done = await run.finish()
    assert done.status == 4, done.err
    assert not deaths.living
    return [(seen.ended or 0) - began for seen in model.seen], deaths.last - began
