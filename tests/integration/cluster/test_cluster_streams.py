"""What is kept in a cluster, how often, and what is said where it is kept less often than it should be."""

from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.cluster import Cluster
from tests.integration.bus.messages import READER, assigned

from interlock.protocol.control import AllScope
from interlock.runtime._names import log_stream, streams_of
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus, BusSettings
from interlock.runtime.bus_errors import BrokerComplaint
from interlock.runtime.doctor import examine
from interlock.runtime.killswitch import command
from interlock.runtime.place import NAMESPACE, Place

pytestmark = pytest.mark.timeout(120)


async def test_everything_is_kept_three_times(cluster: Cluster, ns: str) -> None:
    """Log, orders, bodies, state and budgets have three replicas in a cluster of three, and so has a role's queue."""
    async with Bus.connect(cluster.address, ns, "test") as bus:
        await bus.append(assigned(ns))
        async with bus.pull("assigned", READER, slots=1) as deliveries:
            delivery = await anext(aiter(deliveries))
            await delivery.ack()
        kept = {one.stream: (one.kept, one.wished) for one in await bus.copies()}
        consumer = await cluster.consumer(log_stream(ns), f"assigned-{READER}")
    assert kept == dict.fromkeys(streams_of(ns), (3, 3))
    assert len(kept) == 5
    assert len(consumer["cluster"]["replicas"]) == 2


async def test_whoever_connects_can_write_at_once(cluster: Cluster) -> None:
    """All who connect to a cluster without streams, through different nodes at once, find all of them ready to write.

    A stream takes nothing until it has a leader, and until the node that is asked knows of it.
    """
    urls = cluster.address.url.split(",")
    written: list[int] = []

    async def connect(ns: str, url: str) -> None:
        async with Bus.connect(replace(cluster.address, url=url), ns, "test") as bus:
            written.append(await bus.state.put(f"node.{len(written)}", b"here"))

    for ns in ("n1", "n2", "n3", "n4", "n5", "n6"):
        async with anyio.create_task_group() as group:
            for url in urls * 2:
                group.start_soon(connect, ns, url)
    assert len(written) == 36


async def test_a_single_server_keeps_one_copy(broker: BrokerAddress, ns: str) -> None:
    """Where there is no cluster nothing is replicated and nothing is missing."""
    async with Bus.connect(broker, ns, "test") as bus:
        assert {(one.kept, one.current, one.wished) for one in await bus.copies()} == {(1, 1, 1)}


async def test_the_doctor_tells_of_too_few_copies_and_how_to_get_them(cluster: Cluster, tmp_path: Path) -> None:
    """Streams that were made with one copy are told of; a command with the number of copies makes the others."""
    async with Bus.connect(cluster.address, NAMESPACE, "test", settings=BusSettings(replicas=1)) as bus:
        seq = await bus.append(assigned(NAMESPACE))
        await command(bus, AllScope(), stop=True, reason="kept")
    [told] = [one for one in await examine(Place(tmp_path, cluster.address)) if "broker" in one.text]
    assert not told.fine
    assert f"fewer than 3 copies of {', '.join(streams_of(NAMESPACE))}" in told.text
    assert "--replicas 3" in told.text
    async with Bus.connect(cluster.address, NAMESPACE, "test", settings=BusSettings(replicas=3)) as bus:
        assert {one.kept for one in await bus.copies()} == {3}
        for stream in streams_of(NAMESPACE):
            await cluster.whole(stream)
        assert (await bus.get(seq)).seq == seq
        assert len(await bus.orders.standing()) == 1
    [told] = [one for one in await examine(Place(tmp_path, cluster.address)) if "broker" in one.text]
    assert told.fine
    assert "3 copies" in told.text


async def test_more_copies_than_nodes_is_told(cluster: Cluster, ns: str) -> None:
    """A number of copies that was asked for is not quietly made a smaller one."""
    with pytest.raises(BrokerComplaint, match="peers"):
        async with Bus.connect(cluster.address, ns, "test", settings=BusSettings(replicas=5)):
            pass
