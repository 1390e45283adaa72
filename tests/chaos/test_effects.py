"""Effects happen once, whenever processes die: counted outside of the system, over real processes and ``kill -9``."""

import json
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.chaos.box import Account, account_of, box_team, lay_out
from tests.cli import interlock, kill, read_log, running

from interlock.protocol.state import EffectStatus
from interlock.testing import Answer, Call, CallTool, ScriptedServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

_CRASHING = Path(__file__).parent / "crashing"
_SOURCES = Path(__file__).parent.parent.parent / "src"

_DONE, _UNKNOWN = EffectStatus.DONE, EffectStatus.IN_DOUBT


def _one_call(call: Call) -> Answer | CallTool:
    """Make the one call that the instruction names, and conclude."""
    if call.observations:
        return Answer("done")
    tool = next(name for name in ("box.put", "box.send", "box.ship") if name in call.conversation.rpartition("Use ")[2])
    return CallTool(tool, {"what": "it"})


@pytest.mark.parametrize(
    ("point", "sent", "status"),
    [
        ("before intent", 1, _DONE),
        ("after intent", 0, _UNKNOWN),
        ("after effect", 1, _UNKNOWN),
        ("after outcome", 1, _DONE),
        ("before ack", 1, _DONE),
    ],
)
async def test_a_crash_at_each_point(tmp_path: Path, point: str, sent: int, status: EffectStatus) -> None:
    """One worker of each class of tool dies there: what is known is done once, what is not known is in doubt."""
    plan = [{"step": name, "do": f"Use box.{name} once."} for name in ("put", "send", "ship")]
    team = lay_out(tmp_path, box_team(plan, parallel=3))
    async with ScriptedServer(_one_call) as server:
        env = {
            "INTERLOCK_MODEL_URL": server.url,
            "BOX_CRASH": point,
            "PYTHONPATH": f"{_CRASHING}{os.pathsep}{_SOURCES}",
        }
        done = await interlock("run", str(team), "go", "--workers", "3", "--json", env=env, cwd=tmp_path)
    assert done.status == 0, done.err
    account = account_of(await read_log(tmp_path / ".interlock"), tmp_path / "outside.log")
    assert _crashes(tmp_path) == 3, "not every tool's worker died"
    [put], [send], [ship] = (account.of(f"box.{name}") for name in ("put", "send", "ship"))
    assert (put.status, account.made[put.key] >= 1) == (_DONE, True)
    assert (send.status, account.made[send.key]) == (status, sent)
    assert (ship.status, account.made[ship.key]) == (_DONE, 1)
    assert account.lies() == []
    told = {one["tool"] for one in done.report["effects"]["in_doubt"]}
    assert told == (set() if status is _DONE else {"box.send"})


def _crashes(folder: Path) -> int:
    return len(list(folder.glob("crashed.*")))


_ITEMS = 172
_TOOLS_OF_A_TASK = ("box.put", "box.send", "box.ship", "box.send", "box.put", "box.send")
_KILLS = 40
_PAUSES = (0.1, 0.6)
"""Seconds between two kills, at least and at most."""
_LIMIT = 300


def _six_calls(call: Call) -> Answer | CallTool:
    """Make six different calls, one after the other, and conclude."""
    number = len(call.observations)
    if number == len(_TOOLS_OF_A_TASK):
        return Answer("done")
    return CallTool(_TOOLS_OF_A_TASK[number], {"what": f"thing {number}"})


async def test_a_thousand_effects_under_random_kills(tmp_path: Path) -> None:
    """Whoever is killed whenever: ``once`` at most once, ``idempotent`` by its key, and what is not known is told."""
    seed = int(os.environ.get("INTERLOCK_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    plan = [{"step": "act", "for_each": list(range(_ITEMS)), "do": "Act on {{ item }}.", "attempts": 8}]
    team, began = lay_out(tmp_path, box_team(plan, parallel=24)), time.monotonic()
    async with ScriptedServer(_six_calls) as server:
        env = {"INTERLOCK_MODEL_URL": server.url}
        command = ("run", str(team), "go", "--workers", "4", "--json")
        async with running(*command, env=env, cwd=tmp_path) as run, _killing(tmp_path, seed) as killed:
            with anyio.fail_after(_LIMIT):
                await run.process.wait()
            done = await run.finish()
    account = account_of(await read_log(tmp_path / ".interlock"), tmp_path / "outside.log")
    _tell(account, seed, len(killed), time.monotonic() - began)
    assert done.status == 0, done.err
    assert len(killed) >= _KILLS // 2, "too few were killed to show anything"
    assert account.doubtful("box.send"), "nobody was killed between an effect and its record"
    assert len(account.state.effects) == _ITEMS * len(_TOOLS_OF_A_TASK) > 1000
    assert account.doubled("box.send") == account.doubled("box.ship") == []
    assert account.doubtful("box.put") == account.doubtful("box.ship") == []
    assert account.lies() == []


@asynccontextmanager
async def _killing(folder: Path, seed: int) -> AsyncIterator[list[int]]:
    """Kill the worker that made the last effect, again and again while the block runs; yield who was killed."""
    dice, killed = random.Random(seed), list[int]()  # noqa: S311 -- no secret

    async def kill_on() -> None:
        outside = folder / "outside.log"
        while len(killed) < _KILLS:
            await anyio.sleep(dice.uniform(*_PAUSES))
            await _next_line(outside)  # so that about half of them die between effect and record
            await anyio.sleep(dice.choice((0.0, dice.uniform(0, 0.1))))
            pid = _last_actor(outside)
            if _is_worker(pid):
                kill(pid)
                killed.append(pid)

    async with anyio.create_task_group() as group:
        group.start_soon(kill_on)
        yield killed
        group.cancel_scope.cancel()


async def _next_line(outside: Path) -> None:
    """Wait until a line is written from now on."""
    before = _size(outside)
    while _size(outside) == before:  # noqa: ASYNC110 -- other processes write it
        await anyio.sleep(0.001)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last_actor(outside: Path) -> int:
    lines = outside.read_text().splitlines() if outside.exists() else []
    return int(json.loads(lines[-1])["pid"]) if lines else 0


def _is_worker(pid: int) -> bool:
    """Return whether the process that wrote a line lives still; looked up alone, since it is soon done."""
    try:
        return b"interlock.runtime.process\0w-" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _tell(account: Account, seed: int, kills: int, seconds: float) -> None:
    """Print the figures; ``-s`` shows them."""
    print(  # noqa: T201 -- the figures are what this test is for
        f"\nINTERLOCK_CHAOS_SEED={seed}: {len(account.state.effects)} effects, {kills} kills, {seconds:.0f} s, "
        f"{sum(len(task.attempts) for task in account.state.tasks.values())} attempts"
    )
    for tool in ("box.put", "box.send", "box.ship"):
        every = account.of(tool)
        print(  # noqa: T201 -- as above
            f"  {tool} ({every[0].effect}): {len(every)} effects, {sum(account.made[one.key] for one in every)} made, "
            f"{len(account.doubled(tool))} more than once, {len(account.doubtful(tool))} in doubt"
        )
