"""A broker that is there and cannot be reached: who is cut off stops by himself, before others get his work."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.chaos.cut import BOTH, Cuttable, Direction
from tests.chaos.deaths import Deaths
from tests.chaos.hosts import agents_of, another_host, broker_for, job_of, way_in
from tests.cli import read_log, running
from tests.teams import digest_team, summary, write_items, write_team

from interlock.protocol.messages import JobClosed, TaskResult
from interlock.runtime.killswitch import GUARDS, Guard
from interlock.testing import Answer, Call, Hang, ScriptedServer

pytestmark = pytest.mark.chaos

_SLACK = 0.2
"""What the issue allows beyond the guard."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("guard", "directions"),
    [("strict", BOTH), ("strict", ("there",)), ("strict", ("back",)), ("available", BOTH)],
    ids=["strict-both", "strict-there", "strict-back", "available-both"],
)
async def test_who_is_cut_off_stops_before_others_take_over(
    tmp_path: Path, guard: Guard, directions: tuple[Direction, ...]
) -> None:
    """All agents are gone within the guard and 0.2 s; only then a second host gets their tasks."""
    write_items(tmp_path, 2)
    team = write_team(tmp_path, digest_team())
    async with (
        ScriptedServer(Hang()) as first,
        ScriptedServer(summary) as second,
        broker_for(team, tmp_path) as broker,
        Cuttable.before(broker) as way,
    ):
        arguments = ("run", str(team), "go", "--json", "--guard", guard, "--workers", "2")
        env = {"INTERLOCK_MODEL_URL": first.url, **way_in(way.address)}
        async with running(*arguments, env=env, cwd=tmp_path) as command:
            await first.until(lambda seen: len(seen.calls) >= 2)
            job = await job_of(command)
            async with Deaths.of(agents_of(command)) as deaths, another_host(team, job, broker, second.url):
                assert deaths.last == 0, f"the machine is too slow for the guard {guard}: agents ended before the cut"
                cut = time.monotonic()
                way.cut(*directions)
                await deaths.all(GUARDS[guard] + 5)
                gone = deaths.last - cut
                assert not deaths.living
                with anyio.fail_after(90):
                    await second.until(lambda seen: len(seen.calls) >= 3)
                taken = second.seen[0].began - cut
                way.heal()
                done = await command.finish()
        log = await read_log(broker)
    print(f"{guard}, cut {'+'.join(directions)}: gone {gone:.3f} s, taken over {taken:.3f} s")  # noqa: T201 -- a figure
    assert gone <= GUARDS[guard] + _SLACK
    assert gone < taken
    assert len([entry for entry in log if isinstance(entry.message, TaskResult)]) == 3
    assert len([entry for entry in log if isinstance(entry.message, JobClosed)]) == 1
    assert done.status in {0, 1, 4}, done.err
    assert len(first.calls) == 2


@pytest.mark.timeout(120)
async def test_flapping_ends_no_healthy_run(tmp_path: Path) -> None:
    """With the way to the broker cut for 0.3 s again and again, an available run goes on in the same processes."""
    write_items(tmp_path, 12)
    team = write_team(tmp_path, digest_team(parallel=2))
    async with (
        ScriptedServer(_slowly) as server,
        broker_for(team, tmp_path) as broker,
        Cuttable.before(broker) as way,
    ):
        env = {"INTERLOCK_MODEL_URL": server.url, **way_in(way.address)}
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as command:
            await server.until(lambda seen: bool(seen.calls))
            agents = agents_of(command)
            async with _flapping(way, 0.3, 0.3):
                done = await command.finish()
    assert done.status == 0, done.err
    assert len(agents) >= 3
    assert "starting it again" not in done.err
    assert len(server.calls) == 13


@pytest.mark.timeout(120)
async def test_a_way_that_is_whole_too_seldom_is_none(tmp_path: Path) -> None:
    """Cut for longer than the strict guard, with moments between that are whole, nothing goes on."""
    write_items(tmp_path, 1)
    team = write_team(tmp_path, digest_team())
    async with (
        ScriptedServer(Hang()) as server,
        broker_for(team, tmp_path) as broker,
        Cuttable.before(broker) as way,
    ):
        env = {"INTERLOCK_MODEL_URL": server.url, **way_in(way.address)}
        arguments = ("run", str(team), "go", "--json", "--guard", "strict")
        async with running(*arguments, env=env, cwd=tmp_path) as command:
            await server.until(lambda seen: bool(seen.calls))
            async with Deaths.of(agents_of(command)) as deaths:
                began = time.monotonic()
                async with _flapping(way, 1.5, 0.1):
                    await deaths.all(10)
            done = await command.finish()
    assert not deaths.living
    assert deaths.last - began <= GUARDS["strict"] + _SLACK
    assert done.status == 4, done.err
    assert "stopped by itself" in done.report["reason"]


def _slowly(call: Call) -> Answer:
    return summary(call, delay=0.5)


@asynccontextmanager
async def _flapping(way: Cuttable, cut: float, whole: float) -> AsyncIterator[None]:
    """Cut the way and heal it again and again while the block runs; it is whole afterwards."""

    async def flap() -> None:
        while True:
            way.cut(*BOTH)
            await anyio.sleep(cut)
            way.heal()
            await anyio.sleep(whole)

    async with anyio.create_task_group() as group:
        group.start_soon(flap)
        yield
        group.cancel_scope.cancel()
    way.heal()
