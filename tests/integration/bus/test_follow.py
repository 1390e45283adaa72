"""Following the log."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from tests.integration.bus.messages import assigned, result
from tests.integration.bus.proxy import Proxy
from tests.killable_broker import KillableBroker

from interlock.protocol.codec import encode
from interlock.protocol.subjects import job_subjects, log_subject
from interlock.runtime import _pull
from interlock.runtime._follow import AHEAD
from interlock.runtime._jetstream import api
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import SubjectForged
from interlock.runtime.received import Batch


async def _sequences(batches: AsyncIterator[Batch], count: int) -> list[int]:
    """Return the sequences of the next ``count`` entries."""
    found: list[int] = []
    with anyio.fail_after(30):
        while len(found) < count:
            found += [entry.seq for entry in (await anext(batches)).entries]
    return found


async def _fill(bus: Bus, count: int, job: str = "j1", name: str = "t") -> None:
    for number in range(count):
        await bus.append(assigned(bus.ns, job, f"{name}{number}"))


async def test_an_empty_log_is_caught_up_at_once(bus: Bus) -> None:
    """The first batch of an empty log is empty and says that nothing is pending; the next one waits for an entry."""
    async with bus.follow() as batches:
        with anyio.fail_after(5):
            assert await anext(batches) == Batch((), 0)
            message = assigned(bus.ns)
            sequence = await bus.append(message)
            batch = await anext(batches)
    assert [(entry.seq, entry.message) for entry in batch.entries] == [(sequence, message)]
    assert batch.pending == 0


async def test_every_entry_comes_once_and_in_order(bus: Bus) -> None:
    """Over many batches all entries come in the log's order, and only the last one of the stored ones is caught up."""
    await _fill(bus, 700)
    found, caught_up_at = list[int](), -1
    async with bus.follow() as batches:
        async for batch in batches:
            found += [entry.seq for entry in batch.entries]
            if batch.pending == 0:
                caught_up_at = len(found)
                break
    assert found == list(range(1, 701))
    assert caught_up_at == 700


async def test_filters_and_the_start_are_kept_to(bus: Bus) -> None:
    """A follower gets the jobs that it asked for, from the sequence that it asked for."""
    for job in ("a", "b", "c"):
        await _fill(bus, 3, job)
    filters = [job_subjects(bus.ns, "a"), job_subjects(bus.ns, "c")]
    async with bus.follow(filters, from_sequence=2) as batches:
        assert await _sequences(batches, 5) == [2, 3, 7, 8, 9]


async def test_no_entry_is_missed_when_the_broker_dies(killable_broker: KillableBroker, ns: str) -> None:
    """Over two crashes of the broker a follower gets each entry exactly once, in order."""
    async with (
        Bus.connect(killable_broker.address, ns, "writer") as writer,
        Bus.connect(killable_broker.address, ns, "reader") as reader,
        reader.follow() as batches,
    ):
        found: list[int] = []
        for round_number in range(3):
            await _fill(writer, 50, name=f"r{round_number}-")
            found += await _sequences(batches, 25)
            if round_number < 2:
                await killable_broker.kill()
                await killable_broker.restart()
                await writer.wait_connected()
        found += await _sequences(batches, 150 - len(found))
    assert found == list(range(1, 151))


async def test_no_entry_is_missed_when_bytes_get_lost(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """A connection that swallowed messages and broke leaves no gap."""
    async with Proxy.run(broker) as proxy, Bus.connect(proxy.address, ns, "lossy") as lossy, lossy.follow() as batches:
        await _fill(bus, 20, name="a")
        found = await _sequences(batches, 20)
        proxy.lose_replies = True
        await _fill(bus, 20, name="b")
        await proxy.cut()
        await _fill(bus, 20, name="c")
        found += await _sequences(batches, 40)
    assert found == list(range(1, 61))


async def test_a_consumer_that_the_broker_forgot_is_made_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the broker says nothing more the follower asks anew, and misses nothing."""
    monkeypatch.setattr(_pull, "SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(_pull, "HEARTBEAT_SECONDS", 0.2)
    async with bus.follow() as batches:
        await _fill(bus, 5)
        assert await _sequences(batches, 5) == [1, 2, 3, 4, 5]
        stream = f"IL_{bus.ns}"
        for name in (await api(bus._wire, f"CONSUMER.NAMES.{stream}"))["consumers"]:
            await api(bus._wire, f"CONSUMER.DELETE.{stream}.{name}")
        await _fill(bus, 5, name="later")
        assert await _sequences(batches, 5) == [6, 7, 8, 9, 10]


async def test_what_nobody_can_read_is_left_out(bus: Bus) -> None:
    """Bytes that are no message do not stop a follower; they are counted."""
    await bus._wire.request(log_subject(assigned(bus.ns)), b"not a message")
    message = assigned(bus.ns, task="good")
    await bus.append(message)
    async with bus.follow() as batches:
        assert await _sequences(batches, 1) == [2]
    assert bus.unreadable == 1


async def test_a_message_must_say_what_its_subject_says(bus: Bus) -> None:
    """A body that claims another task or kind than the subject that its sender may publish to is never believed."""
    assignment = assigned(bus.ns)
    forged = result(assignment, 1)
    await bus._wire.request(log_subject(assignment), encode(forged))
    with pytest.raises(SubjectForged, match=r"a message for .*result.* was published to .*assigned"):
        await bus.get(1)
    await bus._wire.request(log_subject(assigned(bus.ns, task="mine")), encode(assigned(bus.ns, task="yours")))
    async with bus.follow() as batches:
        assert (await anext(batches)).entries == ()
    assert bus.unreadable == 2


async def test_leaving_at_any_moment_leaves_the_connection_alone(bus: Bus) -> None:
    """Followers that leave in the middle of their beginning do not cost the other users of the connection anything."""
    for steps in range(12):
        async with bus.follow():
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
    with anyio.fail_after(1):
        await bus.append(assigned(bus.ns))
    assert bus.is_connected


async def test_leaving_takes_the_consumer_away(bus: Bus) -> None:
    """A follower that left costs the broker nothing."""
    async with bus.follow() as batches:
        await anext(batches)
    assert (await api(bus._wire, f"CONSUMER.NAMES.IL_{bus.ns}"))["total"] == 0


async def test_who_looks_now_and_then_misses_nothing(killable_broker: KillableBroker, ns: str) -> None:
    """With pauses, all entries come once and in order: more than fit at once, and those after a break."""
    async with Bus.connect(killable_broker.address, ns, "test") as bus:
        seqs = [await bus.append(assigned(ns, task=f"t{number}")) for number in range(AHEAD + 40)]
        seen: list[int] = []
        batches_read = 0
        async with bus.follow(pause=0.02) as batches:
            with anyio.fail_after(30):
                async for batch in batches:
                    batches_read += 1
                    seen += [entry.seq for entry in batch.entries]
                    if len(seen) == AHEAD + 40:
                        await killable_broker.kill()
                        await killable_broker.restart()
                        await bus.wait_connected()
                        seqs += [await bus.append(assigned(ns, task=f"u{number}")) for number in range(30)]
                    if len(seen) == len(seqs):
                        break
    assert seen == seqs
    assert batches_read < len(seqs) / 4
