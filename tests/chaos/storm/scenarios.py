"""What is done to a job while it runs, one function a scenario."""

import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
from bench._family import family, name_of
from tests.chaos.storm.points import Point, manager_points, verifier_points
from tests.chaos.storm.stage import WORKERS, Kill, Stage
from tests.cli import Finished, Running, agent_pids, broker_pid, descendants
from tests.cluster import Cluster
from tests.oracle import Line
from tests.waiting import eventually

from interlock.runtime._names import log_stream
from interlock.runtime.broker import running_broker
from interlock.runtime.credentials import parties_of
from interlock.runtime.place import NAMESPACE
from interlock.runtime.teamfile import load_team

__all__ = ["SCENARIOS", "Played", "Scenario"]

_ALL_KILLS = 3
_BROKER_KILLS = 6
_LEADER_KILLS = 3
_LEFT = 3
"""The least workers that serve when one is killed: a machine that starts them too slowly is given time."""
_ACTING = 0.5
"""The share of the workers' kills that hit one that has just acted, where one does."""


@dataclass(frozen=True, slots=True)
class Played:
    """How a job ended."""

    status: int
    """Exit status of the command that reports on it."""
    report: dict[str, Any]
    err: str
    lines: list[Line]
    """The log."""
    missed: tuple[str, ...] = ()
    """What the scenario was to do and did not."""


_Storm = Callable[[Stage, Running], Coroutine[None, None, None]]


async def _run(stage: Stage, storm: _Storm) -> Played:
    """Run the job with ``interlock run`` in a storm."""
    async with stage.command(*_arguments(stage)) as run:
        async with anyio.create_task_group() as group:
            group.start_soon(storm, stage, run)
            await run.process.wait()
            group.cancel_scope.cancel()
        done = await run.finish()
    return await _played(stage, done)


def _arguments(stage: Stage) -> list[str]:
    return ["run", str(stage.team), "go", "--id", "storm", "--workers", str(WORKERS), "--json"]


async def _played(stage: Stage, done: Finished) -> Played:
    return Played(done.status, done.report if done.out else {}, done.err, await stage.log())


async def _workers(stage: Stage) -> Played:
    """Kill a random worker each second."""
    return await _run(stage, _kill_workers)


async def _kill_workers(stage: Stage, run: Running) -> None:
    await _work_is_under_way(stage)
    while True:
        dice = stage.dice.random(), stage.dice.random()
        pids = await _workers_of(stage, run)
        victim = pids[int(dice[0] * len(pids))]
        if dice[1] < _ACTING:
            victim = await _who_acts_next(stage, pids) or victim
        stage.strike("worker", [victim])
        await anyio.sleep(1)


async def _workers_of(stage: Stage, run: Running) -> list[int]:
    """Return the workers, once there are enough that one can take over from another, as soon as a machine is fast."""
    while True:
        pids = await anyio.to_thread.run_sync(_agents, run.process.pid, "reader")  # the model must not wait for it
        if len(stage.serving(pids)) >= _LEFT:
            return pids
        await anyio.sleep(0.2)


def _agents(pid: int, name: str) -> list[int]:
    return sorted(one for one in family(pid) if name_of(one).startswith(name))


async def _who_acts_next(stage: Stage, pids: list[int]) -> int | None:
    """Return the worker that makes the next effect, if one does soon: it is between the effect and its record."""
    before = stage.last_act()
    with anyio.move_on_after(0.3):
        while stage.last_act() == before:  # noqa: ASYNC110 -- other processes write it
            await anyio.sleep(0.002)
    actor = stage.last_act()[1]
    return actor if actor in pids else None


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
    return replace(played, missed=missed)


async def _nothing_else(_stage: Stage, _run: Running) -> None:
    await anyio.sleep_forever()


async def _broker(stage: Stage) -> Played:
    """Kill the broker six times."""
    played = await _run(stage, _kill_broker)
    kills = sum(one.what == "broker" for one in stage.kills)
    missed = () if kills >= _BROKER_KILLS else (f"the broker was killed {kills} times",)
    return replace(played, missed=missed)


async def _kill_broker(stage: Stage, run: Running) -> None:
    await _work_is_under_way(stage)
    for number in range(1, _BROKER_KILLS + 1):
        enough = min(stage.items * number // (_BROKER_KILLS + 2), stage.items - 1)
        await stage.server.until(partial(_answered, enough))
        await anyio.sleep(stage.dice.uniform(0, 0.5))
        stage.strike("broker", [await _broker_of(run)])


async def _broker_of(run: Running) -> int:
    """Return the broker's process, once it has been started again."""
    with anyio.fail_after(30):
        while True:
            with suppress(ValueError, IndexError):  # none, or one that is just beginning or ending
                return broker_pid(run.process.pid)
            await anyio.sleep(0.02)


async def _all(stage: Stage) -> Played:
    """Kill everything at once, broker and command included, and start the command again."""
    done = None
    for _ in range(_ALL_KILLS):
        enough = len(stage.server.seen) + _share(stage)
        async with stage.command(*_arguments(stage)) as run:
            async with anyio.create_task_group() as group:
                group.start_soon(_kill_all, stage, run, enough)
                await run.process.wait()
                group.cancel_scope.cancel()
            done = await run.finish()
        if done.status != -signal.SIGKILL:
            break
    kills = len({one.at for one in stage.kills if one.what == "command"})
    async with stage.command(*_arguments(stage)) as run:
        await run.process.wait()
        done = await run.finish()
    missed = () if kills >= _ALL_KILLS else (f"all were killed {kills} times",)
    return replace(await _played(stage, done), missed=missed)


async def _kill_all(stage: Stage, run: Running, enough: int) -> None:
    await stage.server.until(partial(_answered, enough))
    everything = descendants(run.process.pid)
    stage.strike("command", [run.process.pid])
    stage.strike("rest", everything)


async def _up(stage: Stage) -> Played:
    """Kill all of a machine that is kept up, and bring it up again; the last time kill its manager alone."""
    kept = ("up", str(stage.team), "--workers", str(WORKERS), "--drain", "0")
    reached = 0
    for round_ in range(_ALL_KILLS):
        async with stage.command(*kept) as machine:
            await eventually(lambda: running_broker(stage.state))
            if round_ == 0:
                await _submit(stage)
            reached += await _goes_on(stage, _share(stage))
            everything = descendants(machine.process.pid)
            stage.strike("command", [machine.process.pid])
            stage.strike("rest", everything)
            await machine.process.wait()
    async with stage.command(*kept) as machine:
        await eventually(lambda: running_broker(stage.state))
        async with stage.command("watch", "storm", "--json") as watch:
            await _goes_on(stage, 5)
            stage.strike("manager", agent_pids(machine.process.pid, "manager"))
            await watch.process.wait()
            done = await watch.finish()
        machine.process.terminate()
        await machine.process.wait()
    missed = () if reached > 1 else (f"work was under way at {reached} of the kills",)
    return replace(await _played(stage, done), missed=missed)


async def _goes_on(stage: Stage, calls: int) -> bool:
    """Wait for so many calls more; False where the last one came before."""
    enough = len(stage.server.seen) + calls
    await stage.server.until(lambda server: _answered(enough, server) or stage.at_its_end)
    return not stage.at_its_end


def _share(stage: Stage) -> int:
    """Return how many calls to wait for before all is killed: a random part of what the job still needs."""
    return stage.dice.randint(5, max(6, stage.items // (2 * _ALL_KILLS)))


async def _submit(stage: Stage) -> None:
    async with stage.command("submit", str(stage.team), "go", "--id", "storm") as submit:
        await submit.process.wait()
        assert (await submit.finish()).status == 0, submit.err.decode()


async def _cluster(stage: Stage) -> Played:
    """Kill the node that leads the log of a cluster of three, and bring it back, again and again."""
    home = stage.folder / "cluster"
    home.mkdir()
    async with Cluster.run(home, parties=parties_of([load_team(stage.team).team])) as cluster:
        stage.broker = cluster.address
        stage.env |= {"INTERLOCK_NATS": cluster.address.url, "INTERLOCK_NATS_KEYS": str(cluster.address.keys)}
        played = await _run(stage, partial(_kill_leaders, cluster))
        kills = sum(one.what == "broker" for one in stage.kills)
        return replace(played, missed=() if kills >= _LEADER_KILLS else (f"the leader was killed {kills} times",))


async def _kill_leaders(cluster: Cluster, stage: Stage, _run: Running) -> None:
    await _work_is_under_way(stage)
    for number in range(1, _LEADER_KILLS + 1):
        await stage.server.until(partial(_answered, stage.items * number // (_LEADER_KILLS + 2)))
        await anyio.sleep(stage.dice.uniform(0, 0.5))
        leader = await cluster.log_leader(NAMESPACE)
        await cluster.kill(leader)
        stage.kills.append(Kill("broker", time.time(), 0))
        enough = len(stage.server.seen) + 1
        await stage.server.until(partial(_answered, enough))
        await cluster.start(leader)
        await cluster.whole(log_stream(NAMESPACE))


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
    idle: bool = False
    """Whether it waits for most of its time, so that others can be played beside it."""


SCENARIOS = {
    "workers": Scenario(_workers, 1000, 400, 240),
    "manager": Scenario(_manager, 240, 160, 240, idle=True),
    "verifier": Scenario(_verifier, 240, 160, 120),
    "broker": Scenario(_broker, 600, 300, 120),
    "all": Scenario(_all, 400, 200, 180),
    "up": Scenario(_up, 400, 200, 180),
    "cluster": Scenario(_cluster, 400, 160, 180),
}
"""By name, in the order in which they are played."""
