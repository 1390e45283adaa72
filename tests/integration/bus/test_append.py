"""What enters the log, what does not, and what the sender learns of it."""

from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest
from tests.integration.bus.messages import assigned, effect_done, result
from tests.integration.bus.proxy import Proxy
from tests.killable_broker import KillableBroker

from interlock.protocol.messages import Envelope, TaskAssigned
from interlock.protocol.subjects import chain_subjects, log_subjects
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus, BusSettings
from interlock.runtime.bus_errors import (
    AnswerRefused,
    AppendInDoubt,
    BrokerRefused,
    BrokerUnreachable,
    EntryMissing,
    NamespaceWrong,
    PublishDenied,
    SubscribeDenied,
)


async def _log(bus: Bus) -> list[str]:
    """Return the ids of all messages in the log, in order."""
    ids: list[str] = []
    async with bus.follow() as batches:
        async for batch in batches:
            ids += [entry.message.id for entry in batch.entries]
            if not batch.pending:
                break
    return ids


async def _until_stored(bus: Bus, message: TaskAssigned) -> None:
    """Wait until ``message`` stands in the log as the only one of its chain."""
    async with bus.follow([chain_subjects(bus.ns, message.job, message.task)]) as batches:
        with anyio.fail_after(10):
            async for batch in batches:
                if [entry.message.id for entry in batch.entries] == [message.id]:
                    return


async def test_a_message_enters_once_however_often_it_is_appended(bus: Bus) -> None:
    """Appending the same message again returns its first sequence, also after the chain moved on."""
    message = assigned(bus.ns)
    first = await bus.append(message)
    assert await bus.append(message) == first
    later = await bus.append(result(message, first))
    assert await bus.append(message) == first
    assert later > first
    assert len(await _log(bus)) == 2


async def test_a_late_answer_is_refused(bus: Bus) -> None:
    """An answer to an entry that was answered already is refused and told where the chain is."""
    message = assigned(bus.ns, task="t-7")
    first = await bus.append(message)
    last = await bus.append(result(message, first))
    with pytest.raises(AnswerRefused, match="task t-7 has moved on") as caught:
        await bus.append(result(message, first, "another claim"))
    assert (caught.value.task, caught.value.answers, caught.value.last) == ("t-7", first, last)


async def test_a_zombie_of_an_earlier_attempt_is_refused(bus: Bus) -> None:
    """A result of an attempt that was replaced cannot enter."""
    message = assigned(bus.ns)
    first = await bus.append(message)
    second = await bus.append(assigned(bus.ns, answers=first, attempt=2))
    with pytest.raises(AnswerRefused) as caught:
        await bus.append(result(message, first))
    assert caught.value.last == second


async def test_a_chain_cannot_begin_twice(bus: Bus) -> None:
    """A second message that starts a task is refused."""
    await bus.append(assigned(bus.ns))
    with pytest.raises(AnswerRefused):
        await bus.append(assigned(bus.ns))


async def test_of_many_concurrent_answers_exactly_one_wins(broker: BrokerAddress, ns: str) -> None:
    """Forty answers over four connections to one entry: one enters, the others are refused."""
    outcomes: list[int | None] = []

    async def try_it(bus: Bus, message: TaskAssigned, answers: int) -> None:
        try:
            outcomes.append(await bus.append(result(message, answers)))
        except AnswerRefused:
            outcomes.append(None)

    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(Bus.connect(broker, ns, f"b{number}")) for number in range(4)]
        message = assigned(ns)
        first = await buses[0].append(message)
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(try_it, buses[number % 4], message, first)
        assert len(outcomes) == 40
        assert sum(outcome is not None for outcome in outcomes) == 1
        assert len(await _log(buses[0])) == 2


async def test_a_record_outside_the_chain_always_enters_once(bus: Bus) -> None:
    """What happened is recorded wherever the chain is, once, and does not move the chain."""
    message = assigned(bus.ns)
    first = await bus.append(message)
    record = effect_done(bus.ns)
    recorded = await bus.append(record)
    assert await bus.append(record) == recorded
    assert await bus.append(result(message, first)) > recorded
    assert len(await _log(bus)) == 3


async def test_an_append_whose_acknowledgement_got_lost_is_found(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """The message that entered is found after the connection is back, and is in the log once."""
    message, sequences = assigned(ns), list[int]()
    async with Proxy.run(broker) as proxy, Bus.connect(proxy.address, ns, "lossy") as lossy:

        async def append() -> None:
            sequences.append(await lossy.append(message))

        async with anyio.create_task_group() as group:
            proxy.lose_replies = True
            group.start_soon(append)
            await _until_stored(bus, message)
            await proxy.cut()
    assert sequences == [1]
    assert await _log(bus) == [message.id]


async def test_an_append_that_was_answered_meanwhile_is_found(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """Also where somebody answered the message before its sender could look, the sender gets its sequence."""
    message, sequences = assigned(ns), list[int]()
    async with Proxy.run(broker) as proxy, Bus.connect(proxy.address, ns, "lossy") as lossy:

        async def append() -> None:
            sequences.append(await lossy.append(message))

        async with anyio.create_task_group() as group:
            proxy.lose_replies = True
            group.start_soon(append)
            await _until_stored(bus, message)
            await bus.append(result(message, 1))
            await proxy.cut()
    assert sequences == [1]


async def test_an_append_that_got_lost_is_sent_again(broker: BrokerAddress, ns: str, bus: Bus) -> None:
    """A message that never reached the broker is appended over the next connection, in a chain or out of one."""
    chained, record, sequences = assigned(ns), effect_done(ns), list[int]()
    async with Proxy.run(broker) as proxy, Bus.connect(proxy.address, ns, "lossy") as lossy:

        async def append(message: Envelope) -> None:
            sequences.append(await lossy.append(message))

        proxy.lose_requests = True
        async with anyio.create_task_group() as group:
            group.start_soon(append, chained)
            group.start_soon(append, record)
            await anyio.wait_all_tasks_blocked()
            await proxy.cut()
    assert sorted(sequences) == [1, 2]
    assert sorted(await _log(bus)) == sorted([chained.id, record.id])


async def test_without_a_broker_an_append_fails_at_once_and_leaves_no_ghost(
    killable_broker: KillableBroker, ns: str
) -> None:
    """After ``kill -9`` of the broker an append says so at once, and nothing of it appears when the broker is back."""
    async with Bus.connect(killable_broker.address, ns, "test") as bus:
        before = assigned(ns, task="before")
        await bus.append(before)
        await killable_broker.kill()
        with anyio.fail_after(5):
            while bus.is_connected:
                await anyio.lowlevel.checkpoint()
        for number in range(20):
            begin = anyio.current_time()
            with pytest.raises(BrokerUnreachable):
                await bus.append(assigned(ns, task=f"ghost{number}"))
            assert anyio.current_time() - begin < 0.1
        await killable_broker.restart()
        await bus.wait_connected()
        after = assigned(ns, task="after")
        await bus.append(after)
        assert await _log(bus) == [before.id, after.id]


async def test_an_append_in_doubt_says_so_and_can_be_done_again(killable_broker: KillableBroker, ns: str) -> None:
    """Where the broker stays away the outcome is in doubt; the same message again gives the same single entry."""
    settings = BusSettings(settle_seconds=0.1)
    async with (
        Proxy.run(killable_broker.address) as proxy,
        Bus.connect(killable_broker.address, ns, "direct") as direct,
        Bus.connect(proxy.address, ns, "lossy", settings=settings) as bus,
    ):
        message = assigned(ns)
        proxy.lose_replies = True
        async with anyio.create_task_group() as group:

            async def append() -> None:
                with pytest.raises(AppendInDoubt, match="append the same message again"):
                    await bus.append(message)

            group.start_soon(append)
            await _until_stored(direct, message)
            await killable_broker.kill()
            await proxy.cut()
        await killable_broker.restart()
        await bus.wait_connected()
        assert await bus.append(message) == 1
        assert await _log(bus) == [message.id]


async def test_nothing_is_lost_or_doubled_when_the_broker_dies_under_load(
    killable_broker: KillableBroker, ns: str
) -> None:
    """Two hundred appends around a crash of the broker, those that failed done again: each is in the log once."""
    messages = [assigned(ns, task=f"t{number}") for number in range(200)]
    async with Bus.connect(killable_broker.address, ns, "test") as bus:

        async def append(message: TaskAssigned) -> None:
            sequence = None
            while sequence is None:
                try:
                    sequence = await bus.append(message)
                except (BrokerUnreachable, AppendInDoubt):
                    await bus.wait_connected()
                    await anyio.sleep(0.01)

        async with anyio.create_task_group() as group:
            for message in messages[:100]:
                group.start_soon(append, message)
            await _until_stored(bus, messages[0])
            for message in messages[100:]:
                group.start_soon(append, message)
            await killable_broker.kill()
            await killable_broker.restart()
        ids = await _log(bus)
    assert sorted(ids) == sorted(message.id for message in messages)


async def test_what_may_not_be_published_is_told_at_once(killable_broker: KillableBroker, ns: str) -> None:
    """A denied append or subscription is a typed error with its subject, not a timeout."""
    denied = {"publish": {"deny": ["il.*.log.>"]}, "subscribe": {"deny": ["il.*.live.>"]}}
    weak = await killable_broker.let_in("weak", denied)
    async with Bus.connect(weak, ns, "weak") as bus:
        with anyio.fail_after(2):
            message = assigned(ns, job="UpperCase")
            with pytest.raises(PublishDenied, match="UpperCase") as caught:
                await bus.append(message)
            assert caught.value.subject.startswith(f"il.{ns}.log.")
            with pytest.raises(SubscribeDenied):
                async with bus.listen("j"):
                    pass
            assert bus.is_connected


async def test_a_wrong_password_is_told_at_once(broker: BrokerAddress, ns: str) -> None:
    """The login is not tried until a timeout."""
    begin = anyio.current_time()
    with pytest.raises(BrokerRefused, match="check the user, password, token or key"):
        async with Bus.connect(BrokerAddress(broker.url, "interlock", "wrong"), ns, "test"):
            pass
    assert anyio.current_time() - begin < 2


async def test_a_user_that_was_shut_out_comes_back_when_let_in_again(killable_broker: KillableBroker, ns: str) -> None:
    """Where the broker ends the connection for good the bus says so, keeps trying, and works again once it may."""
    weak = await killable_broker.let_in("weak", {})
    async with Bus.connect(weak, ns, "weak") as bus, bus.follow() as batches:
        killable_broker.shut_out()
        with anyio.fail_after(10):
            while bus.is_connected:  # noqa: ASYNC110 - the end of the connection is noticed by nats-py
                await anyio.sleep(0.01)
            with pytest.raises(BrokerUnreachable):
                await bus.append(assigned(ns))
            await killable_broker.let_in("weak", {})
            await bus.wait_connected()
            sequence = await bus.append(assigned(ns))
            async for batch in batches:
                if [entry.seq for entry in batch.entries] == [sequence]:
                    break


async def test_nobody_at_the_address_is_told_in_time(ns: str) -> None:
    """A broker that is not there is given up after ``connect_seconds``."""
    async with Proxy.run(BrokerAddress("nats://127.0.0.1:1")) as proxy:
        gone = proxy.address
    with anyio.fail_after(3), pytest.raises(BrokerUnreachable, match=r"no connection within 0\.3 s"):
        async with Bus.connect(gone, ns, "test", settings=BusSettings(connect_seconds=0.3)):
            pass


async def test_a_message_of_another_namespace_is_refused(bus: Bus) -> None:
    """A bus appends to its own namespace only."""
    with pytest.raises(NamespaceWrong, match="other"):
        await bus.append(assigned("other"))


async def test_entries_are_found_by_sequence_and_by_subject(bus: Bus) -> None:
    """``get``, ``last`` and ``assignment_of`` return what stands in the log."""
    message = assigned(bus.ns)
    first = await bus.append(message, headers={"traceparent": "00-a-b-01", "Interlock-Origin": "00-c-d-01"})
    claim = result(message, first)
    await bus.append(claim)
    got = await bus.get(first)
    assert (got.message, got.traceparent, got.origin) == (message, "00-a-b-01", "00-c-d-01")
    last = await bus.last(log_subjects(bus.ns))
    assert last is not None
    assert last.message == claim
    found = await bus.assignment_of(claim)
    assert found is not None
    assert found.message == message
    assert await bus.last(chain_subjects(bus.ns, "nowhere")) is None
    with pytest.raises(EntryMissing):
        await bus.get(99)


async def test_the_assignment_of_a_result_that_was_overtaken_is_none(bus: Bus) -> None:
    """A result whose attempt was replaced has no assignment any more."""
    first = await bus.append(assigned(bus.ns))
    record = result(assigned(bus.ns), first + 50)
    await bus.append(assigned(bus.ns, answers=first, attempt=2))
    assert await bus.assignment_of(record) is None


async def test_many_processes_may_begin_at_once(broker: BrokerAddress, ns: str) -> None:
    """Ten that make the same stream and bucket at the same time all succeed."""

    async def begin() -> None:
        async with Bus.connect(broker, ns, "test") as bus:
            assert await bus.jobs() == []

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(begin)
