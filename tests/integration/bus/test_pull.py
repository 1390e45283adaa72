"""A role's queue: who gets which message, and when somebody else gets it."""

import sys
import time
from collections import Counter
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.integration.bus.messages import CHECKER, READER, assigned, result
from tests.integration.bus.proxy import Proxy
from tests.killable_broker import KillableBroker
from tests.waiting import eventually

from interlock.protocol.subjects import log_subject
from interlock.runtime import _pull
from interlock.runtime._jetstream import api
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.deliveries import Deliveries, Delivery

_HOLD = """
import sys, anyio
from pathlib import Path
from interlock.runtime.bus import Bus
from interlock.runtime.credentials import Party
from interlock.runtime.keyring import Keyring
async def main():
    url, keys, ns, role = sys.argv[1:]
    async with Bus.connect(Keyring(Path(keys)).login(url, Party("operator")), ns, "victim") as bus:
        async with bus.pull("assigned", role, 4, ack_wait=1) as deliveries:
            delivery = await anext(deliveries)
            async with delivery.keep_alive():
                print(delivery.seq, flush=True)
                await anyio.sleep_forever()
anyio.run(main)
"""


async def _next(deliveries: Deliveries, seconds: float = 10) -> Delivery:
    with anyio.fail_after(seconds):
        return await anext(deliveries)


async def _fill(bus: Bus, count: int, job: str = "j1") -> list[str]:
    messages = [assigned(bus.ns, job, f"t{number}") for number in range(count)]
    for message in messages:
        await bus.append(message)
    return [message.id for message in messages]


async def _consumer(bus: Bus, name: str = f"assigned-{READER}") -> dict[str, Any]:
    return await api(bus._wire, f"CONSUMER.INFO.IL_{bus.ns}.{name}")


async def _until_unanswered(bus: Bus, count: int) -> None:
    """Wait until so many deliveries want an answer: the broker takes answers in later."""
    with anyio.fail_after(10):
        while (await _consumer(bus))["num_ack_pending"] != count:  # noqa: ASYNC110 - what is waited for happens at the broker
            await anyio.sleep(0.01)


async def test_slots_bound_what_is_held_and_every_message_comes_once(bus: Bus) -> None:
    """Over 600 messages never more than the slots are unanswered, several slots are used, and none is lost."""
    expected = await _fill(bus, 600)
    seen: Counter[str] = Counter()
    held, peak = 0, 0

    async def work(delivery: Delivery) -> None:
        nonlocal held, peak
        held += 1
        peak = max(peak, held)
        seen[delivery.message.id] += 1
        await anyio.sleep(delivery.seq % 7 / 1000)  # work of different lengths
        held -= 1
        await delivery.ack()

    async with bus.pull("assigned", READER, 8, ack_wait=30) as deliveries, anyio.create_task_group() as group:
        while seen.total() < 600:
            group.start_soon(work, await _next(deliveries))
            await anyio.lowlevel.checkpoint()
    assert sorted(seen) == sorted(expected)
    assert set(seen.values()) == {1}
    assert 1 < peak <= 8


async def test_nothing_is_taken_ahead_of_the_slots(bus: Bus) -> None:
    """While all slots are taken the broker keeps everything else for others; a slot that gets free takes one more."""
    await _fill(bus, 50)
    async with bus.pull("assigned", READER, 8, ack_wait=60) as deliveries:
        kept = [await _next(deliveries) for _ in range(8)]
        assert (await _consumer(bus))["num_ack_pending"] == 8
        with anyio.move_on_after(0.1) as waited:
            await anext(deliveries)
        assert waited.cancelled_caught
        await kept[3].ack()
        assert (await _next(deliveries)).seq == 9
        await _until_unanswered(bus, 8)


async def test_two_workers_share_a_queue(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """Each message goes to one of the two, and a slow one does not keep the other's work."""
    await _fill(bus, 40)
    async with (
        Bus.connect(broker, ns, "other") as other,
        bus.pull("assigned", READER, 2, ack_wait=30) as slow,
        other.pull("assigned", READER, 4, ack_wait=30) as fast,
    ):
        kept = [await _next(slow), await _next(slow)]
        done = set[int]()
        while len(done) < 38:
            delivery = await _next(fast)
            done.add(delivery.seq)
            await delivery.ack()
        assert done.isdisjoint(delivery.seq for delivery in kept)


async def test_a_killed_holder_s_message_goes_to_another_one(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """After ``kill -9`` of a process in the middle of its work somebody else gets the message, as a second delivery."""
    await _fill(bus, 1)
    login = [broker.url, broker.keys or "", ns, READER]
    victim = await anyio.open_process([sys.executable, "-c", _HOLD, *login], stderr=None)
    try:
        assert victim.stdout is not None
        with anyio.fail_after(30):
            assert (await victim.stdout.receive()).startswith(b"1")
        async with bus.pull("assigned", READER, 4, ack_wait=1) as deliveries:
            with anyio.move_on_after(1.5) as waited:
                await anext(deliveries)
            assert waited.cancelled_caught  # it is kept alive by its holder
            victim.kill()
            await victim.wait()
            delivery = await _next(deliveries)
            assert (delivery.seq, delivery.deliveries) == (1, 2)
            await delivery.ack()
    finally:
        if victim.returncode is None:
            victim.kill()
        await victim.aclose()


async def test_what_was_there_before_may_be_there_again(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """What was stored before its holder connected may have been worked on, whatever the broker's count says.

    A broker that is killed may come back without its last counts.
    """
    await _fill(bus, 1)
    async with (
        Bus.connect(broker, ns, "later") as later,
        later.pull("assigned", READER, 4) as deliveries,
    ):
        old = await _next(deliveries)
        assert (old.deliveries, old.is_again) == (1, True)
        connected = later._wire.up_since
        await eventually(lambda: time.time_ns() > connected + 300_000_000)
        await bus.append(assigned(ns, "j1", "new"))
        new = await _next(deliveries)
        assert (new.deliveries, new.is_again) == (1, False)
        await old.nak()
        again = await _next(deliveries)
        assert (again.seq, again.deliveries, again.is_again) == (old.seq, 2, True)


async def test_what_is_kept_alive_goes_to_nobody_else(bus: Bus) -> None:
    """A message that is worked on for several times ``ack_wait`` is delivered once; one that is not comes again."""
    await _fill(bus, 2)
    async with bus.pull("assigned", READER, 8, ack_wait=0.4) as deliveries:
        kept = await _next(deliveries)
        async with kept.keep_alive():
            neglected = await _next(deliveries)
            for count in (2, 3, 4):
                again = await _next(deliveries)
                assert (again.seq, again.deliveries) == (neglected.seq, count)
        await kept.ack()
        await again.ack()
        await _until_unanswered(bus, 0)


async def test_on_leaving_others_get_what_is_unanswered_at_once(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """Deliveries in hand, in the queue and on their way are given back when a worker is cancelled."""
    await _fill(bus, 30)
    async with Bus.connect(broker, ns, "leaver") as leaver:
        with anyio.CancelScope() as scope:
            async with leaver.pull("assigned", READER, 20, ack_wait=60) as deliveries:
                await _next(deliveries)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
    seen = set[int]()
    async with bus.pull("assigned", READER, 5, ack_wait=60) as deliveries:
        while len(seen) < 30:
            delivery = await _next(deliveries, 3)
            seen.add(delivery.seq)
            await delivery.ack()


async def test_draining_ends_the_iterator_and_lets_those_in_hand_finish(bus: Bus) -> None:
    """After ``drain`` nothing new comes, what nobody began is back at the broker, what is in hand can be answered."""
    await _fill(bus, 10)
    async with bus.pull("assigned", READER, 4, ack_wait=60) as deliveries:
        in_hand = await _next(deliveries)
        await deliveries.drain()
        assert [delivery async for delivery in deliveries] == []
        await in_hand.ack()
        with anyio.fail_after(10):
            while (await _consumer(bus))["ack_floor"]["stream_seq"] != in_hand.seq:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)
    async with bus.pull("assigned", READER, 4, ack_wait=60) as deliveries:
        assert {(await _next(deliveries, 3)).seq for _ in range(4)} <= set(range(2, 11))


async def test_a_message_that_is_given_back_comes_again_after_its_delay(bus: Bus) -> None:
    """``nak`` brings a message back, not before the delay is over."""
    await _fill(bus, 1)
    async with bus.pull("assigned", READER, 1, ack_wait=60) as deliveries:
        begin = anyio.current_time()
        await (await _next(deliveries)).nak(0.3)
        delivery = await _next(deliveries)
        assert delivery.deliveries == 2
        assert anyio.current_time() - begin > 0.25


async def test_what_nobody_can_read_is_terminated(bus: Bus) -> None:
    """Undecodable and forged messages reach no worker, do not come again, and the good one behind them comes."""
    await bus._wire.request(log_subject(assigned(bus.ns, task="broken")), b"{")
    await bus._wire.request(log_subject(assigned(bus.ns, task="forged")), b'{"v":1,"kind":"body.stored"}')
    [good] = await _fill(bus, 1)
    async with bus.pull("assigned", READER, 1, ack_wait=0.3) as deliveries:
        delivery = await _next(deliveries)
        assert delivery.message.id == good
        assert bus.unreadable == 2
        await delivery.ack()
        await _until_unanswered(bus, 0)


async def test_a_message_is_not_delivered_for_ever(bus: Bus) -> None:
    """After ``max_deliver`` deliveries nobody gets the message any more."""
    await _fill(bus, 1)
    async with bus.pull("assigned", READER, 1, ack_wait=60, max_deliver=3) as deliveries:
        for count in (1, 2, 3):
            delivery = await _next(deliveries)
            assert delivery.deliveries == count
            await delivery.nak()
        last = assigned(bus.ns, task="after")
        await bus.append(last)
        assert (await _next(deliveries)).message.id == last.id


async def test_queues_are_apart_by_kind_role_and_job(bus: Bus) -> None:
    """A result goes to its verifiers, an assignment to its workers; with ``job`` only that job's."""
    first, second = assigned(bus.ns, "j1"), assigned(bus.ns, "j2")
    await bus.append(first)
    await bus.append(second)
    claim = result(second, 2)
    await bus.append(claim)
    async with (
        bus.pull("result", CHECKER, 1) as results,
        bus.pull("assigned", READER, 1, job="j2") as of_one_job,
        bus.pull("assigned", "nobody@digest", 1) as nothing,
    ):
        assert (await _next(results)).message == claim
        assert (await _next(of_one_job)).message == second
        with anyio.move_on_after(0.1) as waited:
            await anext(nothing)
        assert waited.cancelled_caught


async def test_pulling_goes_on_after_the_broker_died(killable_broker: KillableBroker, ns: str) -> None:
    """Over a crash of the broker every message is delivered; an answer without a connection is no error."""
    async with (
        Bus.connect(killable_broker.address, ns, "test") as bus,
        bus.pull("assigned", READER, 4, ack_wait=0.5) as deliveries,
    ):
        await _fill(bus, 10)
        seen = set[int]()
        in_hand = await _next(deliveries)
        await killable_broker.kill()
        await in_hand.ack()
        await killable_broker.restart()
        while len(seen) < 10:
            delivery = await _next(deliveries)
            seen.add(delivery.seq)
            await delivery.ack()
        assert seen == set(range(1, 11))


async def test_slots_hold_over_a_broken_connection(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """What was asked for before a connection broke does not come on top of what is asked for after it."""
    async with (
        Proxy.run(broker) as proxy,
        Bus.connect(proxy.address, ns, "lossy") as lossy,
        lossy.pull("assigned", READER, 3, ack_wait=60) as deliveries,
    ):
        await _fill(bus, 1)
        await (await _next(deliveries)).ack()
        await _until_unanswered(bus, 0)
        for count in (1, 2, 3):
            await proxy.cut()
            with anyio.fail_after(10):
                while lossy._wire._client.stats["reconnects"] < count:  # noqa: ASYNC110 - nats-py notices by itself
                    await anyio.sleep(0.001)
                await lossy.wait_connected()
        await _fill(bus, 20, "j2")
        kept = [await _next(deliveries, 4) for _ in range(3)]
        assert len({delivery.seq for delivery in kept}) == 3
        with anyio.move_on_after(0.1) as waited:
            await anext(deliveries)
        assert waited.cancelled_caught
        assert (await _consumer(bus))["num_ack_pending"] == 3


async def test_a_consumer_that_the_broker_forgot_is_made_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that an operator deleted does not stop a worker for good."""
    monkeypatch.setattr(_pull, "SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(_pull, "HEARTBEAT_SECONDS", 0.2)
    async with bus.pull("assigned", READER, 2) as deliveries:
        await _fill(bus, 1)
        await (await _next(deliveries)).ack()
        await api(bus._wire, f"CONSUMER.DELETE.IL_{bus.ns}.assigned-{READER}")
        await _fill(bus, 1, "later")
        with anyio.fail_after(10):
            async for delivery in deliveries:
                await delivery.ack()
                if delivery.message.job == "later":
                    break


async def test_an_error_of_the_block_comes_out_as_it_is(bus: Bus) -> None:
    """Leaving a pull by an error neither wraps nor hides it."""
    with pytest.raises(ZeroDivisionError):
        async with bus.pull("assigned", READER, 2):
            raise ZeroDivisionError
