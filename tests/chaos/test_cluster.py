"""Nodes of a cluster of brokers are killed again and again while a job runs: it goes on, and comes to its whole end."""

import os
import random
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from tests.cli import Finished, read_log, running
from tests.cluster import NAMES, Cluster
from tests.integration.bus.messages import effect_done
from tests.oracle import account_of
from tests.teams import digest_team, summary, write_items, write_team
from tests.waiting import eventually

from interlock.protocol.messages import JobClosed
from interlock.protocol.state import Entry
from interlock.runtime._names import log_stream, streams_of
from interlock.runtime.bus import Bus
from interlock.runtime.chain import patiently
from interlock.runtime.credentials import parties_of
from interlock.runtime.place import NAMESPACE
from interlock.runtime.teamfile import load_team
from interlock.testing import Answer, Call, ScriptedServer

pytestmark = pytest.mark.chaos

_SEED = int(os.environ.get("INTERLOCK_CHAOS_SEED") or 1)
_ITEMS = 60
_GAP = 10.0
"""Seconds for which the log may take nothing."""


def _slowly(call: Call) -> Answer:
    return summary(call, delay=1.0)


async def _kill_again_and_again(
    cluster: Cluster, chance: random.Random, killed: list[str], took: Sequence[float]
) -> None:
    """Kill a node of a cluster that is well, most often the one that leads the log, and bring it back."""
    while True:
        for stream in streams_of(NAMESPACE):
            await cluster.whole(stream)
        await eventually(partial(_took_since, took, anyio.current_time() + 1))
        leader = await cluster.log_leader(NAMESPACE)
        name = leader if chance.random() < 0.75 else chance.choice(NAMES)
        await cluster.kill(name)
        killed.append(f"{name}{' (leader)' if name == leader else ''}")
        await anyio.sleep(chance.uniform(0, 8))
        await cluster.start(name)


def _took_since(took: Sequence[float], moment: float) -> bool:
    return bool(took) and took[-1] > moment


async def _probe(cluster: Cluster, took: list[float]) -> None:
    """Append to the log every tenth of a second, for a job that nobody has, and note when it took something."""
    async with Bus.connect(cluster.address, NAMESPACE, "probe") as bus:
        while True:
            await patiently(partial(bus.append, effect_done(NAMESPACE, job="probe")))
            took.append(anyio.current_time())
            await anyio.sleep(0.1)


@pytest.mark.timeout(400)
async def test_a_job_outlives_the_deaths_of_brokers(tmp_path: Path) -> None:
    """With nodes dying one after the other the job ends, each item done once; the log is never away for 10 s."""
    write_items(tmp_path, _ITEMS)
    team = write_team(tmp_path, digest_team(parallel=3))
    killed, took, entries = list[str](), list[float](), list[Entry]()
    done = Finished(-1, "", "")
    async with (
        Cluster.run(tmp_path, parties=parties_of([load_team(team).team])) as cluster,
        ScriptedServer(_slowly) as model,
        anyio.create_task_group() as group,
    ):
        assert cluster.address.keys is not None
        env = {
            "INTERLOCK_MODEL_URL": model.url,
            "INTERLOCK_NATS": cluster.address.url,
            "INTERLOCK_NATS_KEYS": cluster.address.keys,
        }
        async with running("run", str(team), "go", "--json", env=env, cwd=tmp_path) as command:
            await model.until(lambda seen: len(seen.calls) >= 5)
            group.start_soon(_probe, cluster, took)
            group.start_soon(_kill_again_and_again, cluster, random.Random(_SEED), killed, took)  # noqa: S311 -- repeatable
            with anyio.fail_after(300):
                await command.process.wait()
            done = await command.finish()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            for name in NAMES:
                if cluster.servers[name].process is None:
                    await cluster.start(name)
            await cluster.whole(log_stream(NAMESPACE))
            entries += await read_log(cluster.address)
    gap = max(after - before for before, after in pairwise(took))
    account = account_of(entries, "summarise")
    print(f"seed {_SEED}: killed {', '.join(killed)}; the log took nothing for {gap:.1f} s at most")  # noqa: T201 -- a figure
    assert done.status == 0, done.err
    assert len(killed) >= 2
    assert len(account.accepted) == _ITEMS
    assert not account.doubled
    assert len([entry for entry in entries if isinstance(entry.message, JobClosed)]) == 1
    assert gap < _GAP
