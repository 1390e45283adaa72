"""What is done to a job while it runs, one function a scenario."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from tests.chaos.storm.points import Point, manager_points, verifier_points
from tests.chaos.storm.stage import WORKERS, Stage
from tests.cli import Running, agent_pids, broker_pid

__all__ = ["SCENARIOS", "Played", "Scenario"]

_BROKER_KILLS = 6


@dataclass(frozen=True, slots=True)
class Played:
    """How a job ended."""

    status: int
    """Exit status of the command that reports on it."""
    report: dict[str, Any]
    err: str
    missed: tuple[str, ...] = ()
    """What the scenario was to do and did not."""


_Storm = Callable[[Stage, Running], Coroutine[None, None, None]]


async def _run(stage: Stage, storm: _Storm) -> Played:
    """Run the job with ``interlock run`` in a storm."""
    async with stage.command("run", str(stage.team), "go", "--workers", str(WORKERS), "--json") as run:
        async with anyio.create_task_group() as group:
            group.start_soon(storm, stage, run)
            await run.process.wait()
            group.cancel_scope.cancel()
        done = await run.finish()
    return Played(done.status, done.report if done.out else {}, done.err)


async def _workers(stage: Stage) -> Played:
    """Kill a random worker each second."""
    return await _run(stage, _kill_workers)


async def _kill_workers(stage: Stage, run: Running) -> None:
    await _work_is_under_way(stage)
    while True:
        if pids := agent_pids(run.process.pid, "reader"):
            stage.strike("worker", [stage.dice.choice(sorted(pids))])
        await anyio.sleep(1)


async def _manager(stage: Stage) -> Played:
    """Kill the manager at each named point."""
    return await _at_points(stage, manager_points(stage.dice))


async def _verifier(stage: Stage) -> Played:
    """Kill the verifier around its verdict's commit and acknowledgement."""
    return await _at_points(stage, verifier_points(stage.dice))


async def _at_points(stage: Stage, points: list[Point]) -> Played:
    stage.arm(points)
    played = await _run(stage, _nothing_else)
    missed = tuple(point.name for point in points if point.name not in stage.reached)
    return Played(played.status, played.report, played.err, missed)


async def _nothing_else(_stage: Stage, _run: Running) -> None:
    await anyio.sleep_forever()


async def _broker(stage: Stage) -> Played:
    """Kill the broker six times."""
    played = await _run(stage, _kill_broker)
    kills = sum(one.what == "broker" for one in stage.kills)
    missed = () if kills >= _BROKER_KILLS else (f"the broker was killed {kills} times",)
    return Played(played.status, played.report, played.err, missed)


async def _kill_broker(stage: Stage, run: Running) -> None:
    await _work_is_under_way(stage)
    for number in range(1, _BROKER_KILLS + 1):
        enough = min(stage.items * number // (_BROKER_KILLS + 2), stage.items - 1)
        await stage.server.until(partial(_answered, enough))
        await anyio.sleep(stage.dice.uniform(0, 0.5))
        stage.strike("broker", [broker_pid(run.process.pid)])


async def _work_is_under_way(stage: Stage) -> None:
    await stage.server.until(partial(_answered, 10))


def _answered(times: int, server: Any) -> bool:
    return len(server.seen) >= times


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario and its size."""

    play: Callable[[Stage], Awaitable[Played]]
    items: int
    quick: int
    """Items in the quick set."""
    seconds: float
    """The most that it may take."""


SCENARIOS = {
    "workers": Scenario(_workers, 1000, 400, 240),
    "manager": Scenario(_manager, 240, 160, 240),
    "verifier": Scenario(_verifier, 240, 160, 120),
    "broker": Scenario(_broker, 600, 300, 120),
}
"""By name, in the order in which they are played."""
