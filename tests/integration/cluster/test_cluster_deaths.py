"""Nodes of a cluster die: work goes on, nothing is lost, nothing doubled, what is not done is told."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
import pytest
from tests.cluster import NAMES, Cluster
from tests.integration.bus.messages import READER, assigned, result

from interlock.protocol.control import AllScope
from interlock.protocol.messages import Message, TaskAssigned, TaskResult
from interlock.protocol.subjects import log_subjects
from interlock.runtime._names import log_stream, streams_of
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AppendInDoubt, BrokerUnreachable, LeaderMissing, ReplyMissing
from interlock.runtime.chain import patiently
from interlock.runtime.killswitch import command

pytestmark = pytest.mark.timeout(150)

_GAP = 10.0
"""Seconds for which a cluster may stand still when a node dies."""


_LONG = "x" * 100_000
"""So that a replica that has missed many takes its time to have them."""


@dataclass
class _Line:
    """A line of work over the cluster: somebody assigns, somebody works, somebody reads all of it."""

    assigned: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    """The tasks whose results the log took, as their senders learnt."""
    read: list[Message] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """When something came to the reader."""
    news: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for news that make it hold."""
        with anyio.fail_after(60):
            while not holds():
                await self.news.wait()

    @property
    def results(self) -> list[str]:
        """The tasks whose results were read."""
        return [one.task for one in self.read if isinstance(one, TaskResult)]

    def gap(self) -> float:
        """Return the longest time in which nothing came."""
        return max(after - before for before, after in zip(self.times, self.times[1:], strict=False))

    def tell(self) -> None:
        """Wake who waits for news."""
        news, self.news = self.news, anyio.Event()
        news.set()


@asynccontextmanager
async def _line(cluster: Cluster, ns: str, *, pace: float = 0.02) -> AsyncIterator[_Line]:
    """Have work go on while the block runs, over connections of their own to nodes of their own."""
    line = _Line()
    async with (
        Bus.connect(cluster.only("a"), ns, "assigns") as first,
        Bus.connect(cluster.only("b"), ns, "works") as second,
        Bus.connect(cluster.only("c"), ns, "reads") as third,
        anyio.create_task_group() as group,
    ):

        async def assign() -> None:
            while True:
                task = assigned(ns, task=f"t{len(line.assigned)}")
                line.assigned.append(task.task)
                await patiently(partial(first.append, task))
                await anyio.sleep(pace)

        async def work() -> None:
            async with second.pull("assigned", READER, slots=8, ack_wait=3) as deliveries:
                async for delivery in deliveries:
                    assert isinstance(delivery.message, TaskAssigned)
                    answer = result(delivery.message, delivery.seq)
                    if delivery.message.task not in line.done:
                        await patiently(partial(second.append, answer))
                        line.done.append(answer.task)
                    await delivery.ack()

        async def read() -> None:
            async with third.follow([log_subjects(ns)]) as batches:
                async for batch in batches:
                    line.read += [entry.message for entry in batch.entries]
                    line.times.append(anyio.current_time())
                    line.tell()

        for job in (assign, work, read):
            group.start_soon(job)
        await line.until(lambda: len(line.results) >= 20)
        yield line
        seen = len(line.results)
        await line.until(lambda: len(line.results) >= seen + 50)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_work_goes_on_when_a_node_is_killed(cluster: Cluster, ns: str, which: str) -> None:
    """``kill -9`` of the node that leads the log, or of another: a gap under 10 s, nothing lost, nothing doubled."""
    async with _line(cluster, ns) as line:
        leader = await cluster.log_leader(ns)
        killed = leader if which == "leader" else next(name for name in NAMES if name != leader)
        await cluster.kill(killed)
        seen = len(line.results)
        await line.until(lambda: len(line.results) >= seen + 50)
        await cluster.start(killed)
    print(f"{which} killed: gap {line.gap():.1f} s")  # noqa: T201 -- a figure
    assert line.gap() < _GAP
    assert len(line.results) == len(set(line.results))
    assert set(line.done) - set(line.results) <= set(line.assigned[-30:]), "what was taken was not read"
    tasks = [one.task for one in line.read if isinstance(one, TaskAssigned)]
    assert tasks == sorted(set(tasks), key=lambda task: int(task[1:]))
    assert tasks == line.assigned[: len(tasks)]


async def test_a_node_whose_disk_is_gone_comes_back_whole(cluster: Cluster, ns: str) -> None:
    """A node that begins with an empty disk fetches everything from the others: log and orders can be read from it."""
    async with Bus.connect(cluster.address, ns, "test") as bus:
        seqs = [await bus.append(assigned(ns, task=f"t{number}")) for number in range(50)]
        stopped = await command(bus, AllScope(), stop=True)
    leader = await cluster.log_leader(ns)
    emptied = next(name for name in NAMES if name != leader)
    await cluster.kill(emptied)
    shutil.rmtree(cluster.servers[emptied].config.with_name("store"))
    await cluster.start(emptied)
    for stream in streams_of(ns):
        await cluster.whole(stream)
    # The others stay: with the node that led gone too, two of three would have lost what they had voted for.
    async with Bus.connect(cluster.only(emptied), ns, "test") as bus:
        found = await patiently(partial(bus.entries, log_subjects(ns)))
        assert [one.seq for one in found] == seqs
        assert [one.epoch for one in (await patiently(bus.orders.standing)).values()] == [stopped.epoch]


async def test_any_node_may_be_down_when_a_process_begins(cluster: Cluster, ns: str) -> None:
    """Who begins while a node is dead reaches the others, whichever of them stands first."""
    async with Bus.connect(cluster.address, ns, "test") as bus:
        await bus.append(assigned(ns, task="first"))
    await cluster.kill("a")
    async with Bus.connect(cluster.address, ns, "test") as bus:
        assert await patiently(bus.jobs) == []
        seq = await patiently(partial(bus.append, assigned(ns, task="second")))
        assert (await patiently(partial(bus.get, seq))).message.task == "second"


async def test_without_a_quorum_an_append_fails_in_time(cluster: Cluster, ns: str) -> None:
    """With two of three nodes dead an append is in doubt within 3 s; later ones are refused at once, for good."""
    async with Bus.connect(cluster.only(await _leader(cluster, ns)), ns, "test") as bus:
        await bus.append(assigned(ns, task="before"))
        leader = await cluster.log_leader(ns)
        for name in NAMES:
            if name != leader:
                await cluster.kill(name)
        under_way = assigned(ns, task="under_way")
        began = anyio.current_time()
        with pytest.raises((AppendInDoubt, LeaderMissing)):
            await bus.append(under_way)
        assert anyio.current_time() - began < 3.5
        await anyio.sleep(3)  # so long its leader counts as one that others follow
        for number in range(10):
            began = anyio.current_time()
            with pytest.raises(LeaderMissing):
                await bus.append(assigned(ns, task=f"ghost{number}"))
            assert anyio.current_time() - began < 2
        for name in NAMES:
            if name != leader:
                await cluster.start(name)
        after = assigned(ns, task="after")
        await patiently(partial(bus.append, after))
        await patiently(partial(bus.append, under_way))
        tasks = [entry.message.task for entry in await patiently(partial(bus.entries, log_subjects(ns)))]
    assert sorted(tasks) == ["after", "before", "under_way"]


async def test_orders_are_read_only_from_a_leader_that_others_follow(cluster: Cluster, ns: str) -> None:
    """A node that is alone does not go on to say that nobody was killed: within seconds it says that it cannot know."""
    leader = await _leader(cluster, ns, "IL_{}_CONTROL")
    async with Bus.connect(cluster.only(leader), ns, "test") as bus:
        assert await bus.orders.standing() == {}
        for name in NAMES:
            if name != leader:
                await cluster.kill(name)
        killed = anyio.current_time()
        with pytest.raises((LeaderMissing, ReplyMissing, BrokerUnreachable)):
            await _look_until_told(bus)
        told = anyio.current_time() - killed
    print(f"alone for {told:.1f} s before it said so")  # noqa: T201 -- a figure
    assert told < 4


async def _look_until_told(bus: Bus) -> None:
    with anyio.fail_after(8):
        while True:
            await bus.orders.standing()
            await anyio.sleep(0.1)


async def _leader(cluster: Cluster, ns: str, stream: str = "IL_{}") -> str:
    """Return the node that leads a stream of a namespace, made if need be."""
    async with Bus.connect(cluster.address, ns, "test"):
        return await cluster.leader(stream.format(ns))


async def test_a_replica_that_lags_hides_nothing(cluster: Cluster, ns: str) -> None:
    """What the log took is found at once at a node that was asleep meanwhile: by sequence, by subject, by following."""
    leader = await _leader(cluster, ns)
    sleeper = next(name for name in NAMES if name != leader)
    async with Bus.connect(cluster.only(leader), ns, "writes") as writer:
        for number in range(4):
            async with Bus.connect(cluster.only(sleeper), ns, "reads") as reader, anyio.create_task_group() as group:
                with cluster.asleep(sleeper):
                    tasks = [assigned(ns, task=f"r{number}t{each}", instruction=_LONG) for each in range(200)]
                    seqs = [await writer.append(task) for task in tasks]
                    for seq in seqs[-20:]:  # what it is asked in its sleep it answers first
                        group.start_soon(patiently, partial(reader.get, seq))
                    await anyio.sleep(0.05)
                found = await patiently(partial(reader.entries, log_subjects(ns), seqs[-3]))
                assert [one.seq for one in found] == seqs[-2:]
                assert await _read_to_end(reader, seqs[-20]) == seqs[-20:]
        await cluster.whole(log_stream(ns))


async def _read_to_end(bus: Bus, after: int) -> list[int]:
    found: list[int] = []
    async with bus.follow(from_sequence=after) as batches:
        async for batch in batches:
            found += [entry.seq for entry in batch.entries]
            if batch.pending == 0:
                return found
    return found
